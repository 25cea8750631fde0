from .common import but
from .qwen3_5 import TEXT
from .qwen3_next import ONE_LESS

EXPERTS = {
    "model_type": "qwen3_5_moe_text",
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 24,
}
QWEN3_5_MOE = {
    "model_type": "qwen3_5_moe",
    "architectures": ["Qwen3_5MoeForConditionalGeneration"],
    "text_config": but(TEXT, "intermediate_size", **EXPERTS),
}


def text(*absent, **changed):
    return but(QWEN3_5_MOE, text_config=but(QWEN3_5_MOE["text_config"], *absent, **changed))


def gated(d, ff):
    return {"gate_proj.weight": [ff, d], "up_proj.weight": [ff, d], "down_proj.weight": [d, ff]}


def published(config, place="model.language_model."):
    """The names of published checkpoints, which have two tensors for all experts of a layer. transformers
    saves one by one what it reads so."""
    c = config["text_config"]
    d, heads, head_dim = c["hidden_size"], c["num_attention_heads"], c["head_dim"]
    keys = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    n_values = c["linear_num_value_heads"]
    values = n_values * c["linear_value_head_dim"]
    kv = c["num_key_value_heads"] * head_dim
    linear = {
        "in_proj_qkv.weight": [2 * keys + values, d],
        "in_proj_z.weight": [values, d],
        "in_proj_b.weight": [n_values, d],
        "in_proj_a.weight": [n_values, d],
        "conv1d.weight": [2 * keys + values, 1, c["linear_conv_kernel_dim"]],
        "A_log": [n_values],
        "dt_bias": [n_values],
        "norm.weight": [c["linear_value_head_dim"]],
        "out_proj.weight": [d, values],
    }
    full = {
        "q_proj.weight": [2 * heads * head_dim, d],
        "k_proj.weight": [kv, d],
        "v_proj.weight": [kv, d],
        "o_proj.weight": [d, heads * head_dim],
        "q_norm.weight": [head_dim],
        "k_norm.weight": [head_dim],
    }
    experts, ff = c["num_experts"], c["moe_intermediate_size"]
    shared = gated(d, c["shared_expert_intermediate_size"])
    rest = {
        "input_layernorm.weight": [d],
        "post_attention_layernorm.weight": [d],
        "mlp.gate.weight": [experts, d],
        "mlp.experts.gate_up_proj": [experts, 2 * ff, d],
        "mlp.experts.down_proj": [experts, d, ff],
        **{f"mlp.shared_expert.{name}": shape for name, shape in shared.items()},
        "mlp.shared_expert_gate.weight": [1, d],
    }
    shapes = {
        "lm_head.weight": [c["vocab_size"], d],
        f"{place}embed_tokens.weight": [c["vocab_size"], d],
        f"{place}norm.weight": [d],
    }
    for i in range(c["num_hidden_layers"]):
        attends = (i + 1) % c["full_attention_interval"] == 0
        name, mixer = ("self_attn", full) if attends else ("linear_attn", linear)
        layer = {**{f"{name}.{part}": shape for part, shape in mixer.items()}, **rest}
        shapes |= {f"{place}layers.{i}.{part}": shape for part, shape in layer.items()}
    return shapes


CASES = {
    "qwen3_5_moe-base": dict(
        config=text(),
        rewinds=False,
        contrasts=[text(norm_topk_prob=False), text(num_experts_per_tok=1)],
    ),
    "qwen3_5_moe-unnormalised": dict(
        config=text(norm_topk_prob=False, full_attention_interval=3, tie_word_embeddings=True),
        rewinds=False,
    ),
    "qwen3_5_moe-q4": dict(
        config=text(
            hidden_size=128,
            head_dim=32,
            linear_value_head_dim=32,
            moe_intermediate_size=64,
            shared_expert_intermediate_size=64,
        ),
        quantize=dict(group_size=64, bits=4),
        rewinds=False,
    ),
    "qwen3_5_moe-hf": dict(
        config=text(),
        layout="hf",
        hf=published,
        fills=ONE_LESS,
        rewinds=False,
        alone=True,
    ),
    # mlx-lm adds the 1 to the norms' scales in bfloat16, transformers in float32.
    "qwen3_5_moe-hf-bf16": dict(
        config=text(),
        dtype="bfloat16",
        layout="hf",
        hf=lambda config: published(config, "model."),
        fills=ONE_LESS,
        rewinds=False,
        alone=True,
    ),
}
