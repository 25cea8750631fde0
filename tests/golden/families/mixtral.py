from fills import Fills

from .common import but

MIXTRAL = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
MIXTRAL_Q = but(MIXTRAL, hidden_size=128, intermediate_size=64, num_local_experts=4)


def packed(config):
    """Hugging Face's names with packed weights, expert by expert: what mlx-lm's sanitize still joins."""
    d, ff = config["hidden_size"], config["intermediate_size"]
    keys = d // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens": [config["vocab_size"], d], "lm_head": [config["vocab_size"], d]}
    tensors = {"model.norm.weight": [d]}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, out in [("q_proj", d), ("k_proj", keys), ("v_proj", keys), ("o_proj", d)]:
            shapes[f"{layer}.self_attn.{name}"] = [out, d]
        moe = f"{layer}.block_sparse_moe"
        tensors[f"{moe}.gate.weight"] = [config["num_local_experts"], d]
        for e in range(config["num_local_experts"]):
            for name, shape in [("w1", [ff, d]), ("w2", [d, ff]), ("w3", [ff, d])]:
                shapes[f"{moe}.experts.{e}.{name}"] = shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{norm}.weight"] = [d]
    fills = Fills([f"{path}.weight" for path in shapes], {})
    group_size, bits = (config["quantization"][key] for key in ("group_size", "bits"))
    for path, (out, inner) in shapes.items():
        sizes = [out, inner * bits // 32], [out, inner // group_size]
        for name, *tensor in fills.packed(path, "F32", *sizes, bits, "affine"):
            tensors[name] = tensor
    return tensors


CASES = {
    "mixtral-base": dict(
        config=but(MIXTRAL, rms_norm_eps=1e-2),
        contrasts=[{"num_experts_per_tok": 3}, {"rms_norm_eps": 1e-5}, {"rope_theta": 1e6}],
    ),
    # Of what has a default in mlx-lm only the sizes are there: 8 key heads, 8 experts, 2 a token.
    "mixtral-defaults": dict(
        config=but(
            MIXTRAL,
            "num_key_value_heads",
            "num_local_experts",
            "num_experts_per_tok",
            "rms_norm_eps",
            "rope_theta",
            "tie_word_embeddings",
            "max_position_embeddings",
            "hidden_act",
            hidden_size=48,
            intermediate_size=16,
            num_attention_heads=8,
        ),
        contrasts=[{"num_experts_per_tok": 1}, {"rope_theta": 10000.0}],
    ),
    # `null` is no default: as many key heads as heads.
    "mixtral-traditional-tied": dict(
        config=but(
            MIXTRAL,
            num_key_value_heads=None,
            num_experts_per_tok=1,
            rope_traditional=True,
            tie_word_embeddings=True,
        ),
        legacy={"lm_head.weight": [96, 40]},
        contrasts=[{"rope_traditional": False}],
    ),
    "mixtral-q4": dict(
        config=MIXTRAL_Q,
        quantize=dict(
            group_size=64,
            bits=4,
            overrides={
                f"model.layers.{i}.block_sparse_moe.gate": {"group_size": 64, "bits": 8}
                for i in range(2)
            },
        ),
    ),
    "mixtral-hf": dict(config=but(MIXTRAL, num_local_experts=3), layout="hf", shards=2),
    "mixtral-hf-q4": dict(
        config=but(MIXTRAL_Q, quantization={"group_size": 32, "bits": 4}), layout="hf", hf=packed, alone=True
    ),
}
