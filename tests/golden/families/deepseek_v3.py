from .common import NO_SCALING, but

YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 4,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 0.8,
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "architectures": ["DeepseekV3ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 20,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 14,
    "qk_rope_head_dim": 10,
    "v_head_dim": 11,
    "attention_bias": True,
    # Layers 0, 1 and 3 are dense.
    "first_k_dense_replace": 1,
    "moe_layer_freq": 2,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "rms_norm_eps": 1e-2,
    "rope_theta": 1000.0,
    "rope_scaling": YARN,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
SMALL = but(DEEPSEEK, "moe_layer_freq", num_hidden_layers=2)
DEEPSEEK_Q = but(
    SMALL,
    hidden_size=64,
    intermediate_size=64,
    moe_intermediate_size=64,
    num_attention_heads=2,
    q_lora_rank=64,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=8,
    v_head_dim=32,
)
# Scores stay above 0, where transformers and mlx-lm leave out groups alike.
ABOVE_ZERO = {r"e_score_correction_bias$": (0.3, 0.25)}


def tensors(config):
    """{path: [out, in]} of the matrices in Hugging Face's names, and {name: shape} of the rest."""
    d, h = config["hidden_size"], config["num_attention_heads"]
    q_rank, rank, nope, turning, value = (
        config[k]
        for k in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    matrices, rest = {}, {"model.embed_tokens.weight": [config["vocab_size"], d]}

    def mlp(path, d_ff):
        matrices.update({f"{path}.gate_proj": [d_ff, d], f"{path}.up_proj": [d_ff, d]})
        matrices[f"{path}.down_proj"] = [d, d_ff]

    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        attention = f"{layer}.self_attn"
        matrices[f"{attention}.q_a_proj"] = [q_rank, d]
        matrices[f"{attention}.q_b_proj"] = [h * (nope + turning), q_rank]
        matrices[f"{attention}.kv_a_proj_with_mqa"] = [rank + turning, d]
        matrices[f"{attention}.kv_b_proj"] = [h * (nope + value), rank]
        matrices[f"{attention}.o_proj"] = [d, h * value]
        rest[f"{attention}.q_a_layernorm.weight"] = [q_rank]
        rest[f"{attention}.kv_a_layernorm.weight"] = [rank]
        if i < config["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", config["intermediate_size"])
        else:
            rest[f"{layer}.mlp.gate.weight"] = [config["n_routed_experts"], d]
            rest[f"{layer}.mlp.gate.e_score_correction_bias"] = ["F32", [config["n_routed_experts"]], "uniform", 0, 0.3]
            for e in range(config["n_routed_experts"]):
                mlp(f"{layer}.mlp.experts.{e}", config["moe_intermediate_size"])
            mlp(f"{layer}.mlp.shared_experts", config["moe_intermediate_size"] * config["n_shared_experts"])
        rest[f"{layer}.input_layernorm.weight"] = [d]
        rest[f"{layer}.post_attention_layernorm.weight"] = [d]
    rest["model.norm.weight"] = [d]
    rest["lm_head.weight"] = [config["vocab_size"], d]
    return matrices, rest


def fp8(config):
    """As DeepSeek published it: 8-bit floats, a scale for each block of 128 by 128."""
    matrices, shapes = tensors(config)
    for path, (out, inner) in matrices.items():
        shapes[f"{path}.weight"] = ["F8_E4M3", [out, inner], "codes", 0x77]
        blocks = [-(-out // 128), -(-inner // 128)]
        scale = 0.03 / inner**0.5
        shapes[f"{path}.weight_scale_inv"] = ["F32", blocks, "uniform", scale, scale / 2]
    return shapes


def packed_kv_b(config):
    """An old MLX conversion, whose keys and values come from one packed matrix."""
    matrices, shapes = tensors(config)
    for path, shape in matrices.items():
        if not path.endswith("kv_b_proj"):
            shapes[f"{path}.weight"] = shape
            continue
        out, inner = shape
        scale = 1.3 / inner**0.5 / 4.6
        shapes[f"{path}.weight"] = ["U32", [out, inner // 8], "words"]
        shapes[f"{path}.scales"] = ["F32", [out, inner // 32], "uniform", scale, scale / 10]
        shapes[f"{path}.biases"] = ["F32", [out, inner // 32], "uniform", -7.5 * scale, scale / 2]
    return shapes


CASES = {
    "deepseek_v3-base": dict(
        config=DEEPSEEK,
        legacy={
            "model.layers.0.self_attn.rotary_emb.inv_freq": [5],
            "model.layers.61.embed_tokens.weight": [96, 40],
        },
        contrasts=[
            {"rms_norm_eps": 1e-6},
            {"rope_theta": 10000.0},
            NO_SCALING,
            {"rope_scaling": but(YARN, "mscale_all_dim")},
            {"num_experts_per_tok": 2},
            {"n_group": 1},
            {"topk_group": 3},
            {"norm_topk_prob": False},
            {"routed_scaling_factor": 1.0},
        ],
    ),
    # Absent is what mlx-lm has defaults for: no groups, one expert a token, none shared.
    "deepseek_v3-kimi": dict(
        config=but(
            DEEPSEEK,
            "n_shared_experts",
            "num_experts_per_tok",
            "n_group",
            "topk_group",
            "topk_method",
            "scoring_func",
            "norm_topk_prob",
            "routed_scaling_factor",
            "rms_norm_eps",
            "rope_theta",
            "rope_scaling",
            "attention_bias",
            "moe_layer_freq",
            "first_k_dense_replace",
            "num_key_value_heads",
            "hidden_act",
            "tie_word_embeddings",
            "max_position_embeddings",
            model_type="kimi_k2",
            num_hidden_layers=2,
            q_lora_rank=None,
        ),
        dtype="bfloat16",
        contrasts=[{"rope_theta": 1000.0}, {"num_experts_per_tok": 2}],
    ),
    "deepseek_v3-joyai": dict(
        config=but(
            DEEPSEEK,
            model_type="joyai_llm_flash",
            num_hidden_layers=3,
            moe_layer_freq=1,
            n_shared_experts=1,
            norm_topk_prob=False,
            n_group=2,
            topk_group=1,
            attention_bias=False,
            rope_scaling=but(YARN, mscale=1.4, mscale_all_dim=0.5),
        ),
        contrasts=[{"norm_topk_prob": True}, {"topk_group": 2}, {"rope_scaling": YARN}],
    ),
    # No n_routed_experts: every layer is dense.
    "deepseek_v3-dense": dict(
        config=but(
            SMALL, "n_routed_experts", rope_scaling={"type": "linear", "factor": 4.0}
        ),
        contrasts=[NO_SCALING],
    ),
    "deepseek_v3-q4": dict(config=DEEPSEEK_Q, quantize=dict(group_size=32, bits=4)),
    "deepseek_v3-q8-bf16": dict(
        config=but(DEEPSEEK_Q, qk_nope_head_dim=64, v_head_dim=64),
        dtype="bfloat16",
        quantize=dict(group_size=64, bits=8),
    ),
    "deepseek_v3-kv-b-q4": dict(
        config=but(
            DEEPSEEK_Q,
            attention_bias=False,
            n_routed_experts=4,
            n_group=2,
            topk_group=1,
            num_experts_per_tok=2,
            quantization={"group_size": 32, "bits": 4},
        ),
        layout="hf",
        hf=packed_kv_b,
        alone=True,
    ),
    "deepseek_v3-fp8": dict(
        config=but(
            DEEPSEEK_Q,
            hidden_size=136,
            intermediate_size=130,
            attention_bias=False,
            n_routed_experts=4,
            n_group=2,
            topk_group=1,
            num_experts_per_tok=2,
            quantization_config={
                "quant_method": "fp8",
                "fmt": "e4m3",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
            },
        ),
        dtype="bfloat16",
        layout="hf",
        hf=fp8,
        alone=True,
    ),
    "deepseek_v3-hf": dict(
        config=but(SMALL, num_hidden_layers=3, n_shared_experts=1, num_nextn_predict_layers=1),
        fills=ABOVE_ZERO,
        layout="hf",
    ),
}
