from .common import NO_SCALING, but

YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 32,
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 14,
    "attention_bias": True,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 8,
    "swiglu_limit": 7.0,
    "rms_norm_eps": 1e-2,
    "rope_theta": 1000.0,
    # As published; mlx-lm does not read `truncate`.
    "rope_scaling": {**YARN, "truncate": False},
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
# Wide enough that gates reach the limit and scores the sinks.
GATES = {
    r"experts\.(gate|up)_proj\.bias$": (0.0, 6.0),
    r"\.sinks$": (1.0, 2.0),
}
GPT_OSS_Q = but(
    GPT_OSS,
    hidden_size=64,
    intermediate_size=64,
    head_dim=32,
    num_attention_heads=4,
    num_hidden_layers=2,
    layer_types=["sliding_attention", "full_attention"],
)
EIGHT_BITS = {"group_size": 64, "bits": 8}
ATTENTION = [f"model.layers.{i}.self_attn.{x}_proj" for i in range(2) for x in "qkvo"]


def published(config):
    """The tensors of OpenAI's release, with the experts' weights in blocks of 4-bit floats."""
    d, ff, e = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    heads, kv, dim = (config[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], d]}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, (out, inner) in {
            "self_attn.q_proj": (heads * dim, d),
            "self_attn.k_proj": (kv * dim, d),
            "self_attn.v_proj": (kv * dim, d),
            "self_attn.o_proj": (d, heads * dim),
            "mlp.router": (e, d),
        }.items():
            shapes[f"{layer}.{name}.weight"] = [out, inner]
            shapes[f"{layer}.{name}.bias"] = [out]
        for name, (out, inner) in {"gate_up_proj": (2 * ff, d), "down_proj": (d, ff)}.items():
            experts = f"{layer}.mlp.experts.{name}"
            shapes[f"{experts}_blocks"] = ["U8", [e, out, inner // 32, 16], "integers", 0, 255]
            shapes[f"{experts}_scales"] = ["U8", [e, out, inner // 32], "integers", 121, 123]
            shapes[f"{experts}_bias"] = [e, out]
        shapes[f"{layer}.self_attn.sinks"] = [heads]
        shapes[f"{layer}.input_layernorm.weight"] = [d]
        shapes[f"{layer}.post_attention_layernorm.weight"] = [d]
    return {**shapes, "model.norm.weight": [d], "lm_head.weight": [config["vocab_size"], d]}


CASES = {
    "gpt_oss-base": dict(
        config=GPT_OSS,
        fills=GATES,
        contrasts=[
            {"rms_norm_eps": 1e-5},
            {"rope_theta": 150000.0},
            {"sliding_window": 9},
            {"num_experts_per_tok": 4},
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            NO_SCALING,
        ],
    ),
    # Absent is what mlx-lm has defaults for: 64 query heads of 64 features, 8 key heads, 128 experts.
    "gpt_oss-defaults": dict(
        config=but(
            GPT_OSS,
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "num_local_experts",
            "num_experts_per_tok",
            "layer_types",
            "sliding_window",
            "rms_norm_eps",
            "rope_theta",
            "rope_scaling",
            "attention_bias",
            "hidden_act",
            "swiglu_limit",
            "tie_word_embeddings",
            "max_position_embeddings",
            num_hidden_layers=2,
            intermediate_size=8,
        ),
        contrasts=[{"rope_theta": 10000.0}, {"num_experts_per_tok": 3}, {"sliding_window": 16}],
    ),
    # Layers by turns without layer_types; the newer spelling of rope settings.
    "gpt_oss-bf16": dict(
        config=but(
            GPT_OSS,
            "layer_types",
            "rope_theta",
            "rope_scaling",
            num_hidden_layers=4,
            rope_parameters={"rope_theta": 500.0, **YARN},
        ),
        reads_as={"rope_theta": 500.0, "rope_scaling": YARN},
        dtype="bfloat16",
        contrasts=[{"rope_scaling": None}, {"layer_types": ["full_attention", "sliding_attention"] * 2}],
    ),
    "gpt_oss-q4": dict(config=GPT_OSS_Q, fills=GATES, quantize=dict(group_size=32, bits=4)),
    # As converters have it: 4-bit floats in the experts alone.
    "gpt_oss-mxfp4": dict(
        config=GPT_OSS_Q,
        fills=GATES,
        quantize=dict(
            group_size=32,
            bits=4,
            mode="mxfp4",
            overrides={name: EIGHT_BITS for name in [*ATTENTION, "model.embed_tokens", "lm_head"]},
        ),
    ),
    "gpt_oss-hf-mxfp4": dict(
        config=but(
            GPT_OSS_Q,
            rope_scaling=YARN,
            quantization_config={
                "quant_method": "mxfp4",
                "modules_to_not_convert": [
                    "model.layers.*.self_attn",
                    "model.layers.*.mlp.router",
                    "model.embed_tokens",
                    "lm_head",
                ],
            },
        ),
        dtype="bfloat16",
        fills={r"gate_up_proj_bias$": (0.0, 6.0), r"\.sinks$": (1.0, 2.0)},
        layout="hf",
        hf=published,
        shards=2,
    ),
}
