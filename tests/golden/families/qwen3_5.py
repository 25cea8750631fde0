from .common import YARN_ROPE, but
from .qwen3_next import ONE_LESS, QWEN3_NEXT

ROPE = {
    "rope_type": "default",
    "rope_theta": 1000.0,
    "partial_rotary_factor": 0.5,
    "mrope_section": [2, 2, 2],
    "mrope_interleaved": True,
}
TEXT = but(
    QWEN3_NEXT,
    "architectures",
    "num_experts",
    "num_experts_per_tok",
    "decoder_sparse_step",
    "mlp_only_layers",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "norm_topk_prob",
    "rope_theta",
    "partial_rotary_factor",
    model_type="qwen3_5_text",
    linear_num_value_heads=6,
    rope_parameters=ROPE,
)
QWEN3_5 = {
    "model_type": "qwen3_5",
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "text_config": TEXT,
}


def text(*absent, **changed):
    return but(QWEN3_5, text_config=but(TEXT, *absent, **changed))


def contrast(config, *absent, **changed):
    return {"text_config": but(config["text_config"], *absent, **changed)}


BASE = text(rms_norm_eps=1e-3)
YARN = text(
    attention_bias=True,
    tie_word_embeddings=True,
    head_dim=32,
    rope_parameters={**YARN_ROPE, "rope_theta": 500.0},
)
OLD_ROPE = text(
    rope_parameters=None,
    rope_theta=500.0,
    partial_rotary_factor=0.75,
    rope_scaling={"type": "linear", "factor": 4.0},
)
Q4 = text(
    hidden_size=128,
    intermediate_size=192,
    head_dim=32,
    linear_key_head_dim=16,
    linear_value_head_dim=32,
    tie_word_embeddings=True,
)


def gated(d, ff):
    return {"gate_proj.weight": [ff, d], "up_proj.weight": [ff, d], "down_proj.weight": [d, ff]}


def mlp(c):
    d, experts = c["hidden_size"], c.get("num_experts")
    if not experts:
        return gated(d, c["intermediate_size"])
    ff = c["moe_intermediate_size"]
    shared = gated(d, c["shared_expert_intermediate_size"])
    return {
        "gate.weight": [experts, d],
        "experts.gate_up_proj": [experts, 2 * ff, d],
        "experts.down_proj": [experts, d, ff],
        **{f"shared_expert.{name}": shape for name, shape in shared.items()},
        "shared_expert_gate.weight": [1, d],
    }


def hf(config):
    """The names of a whole model of language and vision, of the latter a few."""
    c = config["text_config"]
    d, heads = c["hidden_size"], c["num_attention_heads"]
    keys = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    n_values = c["linear_num_value_heads"]
    values = n_values * c["linear_value_head_dim"]
    queries, head_dim = heads * c["head_dim"], c["head_dim"]
    kv = c["num_key_value_heads"] * head_dim
    shapes = {
        "lm_head.weight": [c["vocab_size"], d],
        "model.visual.patch_embed.proj.weight": [8, 3, 2, 4, 4],
        "model.visual.merger.norm.weight": [8],
        "mtp.fc.weight": [d, 2 * d],
        "mtp.layers.0.input_layernorm.weight": [d],
    }
    inner = {"embed_tokens.weight": [c["vocab_size"], d], "norm.weight": [d]}
    for i in range(c["num_hidden_layers"]):
        if (i + 1) % c["full_attention_interval"]:
            mixer = "linear_attn"
            parts = {
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
        else:
            mixer = "self_attn"
            parts = {
                "q_proj.weight": [2 * queries, d],
                "k_proj.weight": [kv, d],
                "v_proj.weight": [kv, d],
                "o_proj.weight": [d, queries],
                "q_norm.weight": [head_dim],
                "k_norm.weight": [head_dim],
            }
        layer = {
            **{f"{mixer}.{name}": shape for name, shape in parts.items()},
            "input_layernorm.weight": [d],
            "post_attention_layernorm.weight": [d],
            **{f"mlp.{name}": shape for name, shape in mlp(c).items()},
        }
        inner |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    return {**shapes, **{f"model.language_model.{name}": shape for name, shape in inner.items()}}


CASES = {
    "qwen3_5-base": dict(
        config=BASE,
        legacy={"vision_tower.blocks.0.norm1.weight": [8]},
        rewinds=False,
        contrasts=[
            contrast(BASE, rms_norm_eps=1e-6),
            contrast(BASE, rope_parameters=but(ROPE, rope_theta=100000.0)),
            contrast(BASE, rope_parameters=but(ROPE, "partial_rotary_factor")),
            contrast(BASE, "rope_parameters"),
        ],
    ),
    "qwen3_5-bias-yarn": dict(
        config=YARN,
        rewinds=False,
        contrasts=[
            contrast(YARN, rope_parameters={"rope_theta": 500.0}),
            contrast(YARN, rope_parameters={**YARN_ROPE, "rope_theta": 100000.0}),
        ],
    ),
    "qwen3_5-old-rope": dict(
        config=OLD_ROPE,
        rewinds=False,
        contrasts=[
            contrast(OLD_ROPE, "rope_parameters"),
            contrast(OLD_ROPE, "rope_scaling"),
            contrast(OLD_ROPE, "rope_theta"),
        ],
    ),
    # One level of settings, and most of those absent that mlx-lm has defaults for; the older keys of
    # the rotary embedding do not count then.
    "qwen3_5-defaults": dict(
        config={
            "model_type": "qwen3_5",
            "hidden_size": 128,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 1,
            "rope_theta": 10.0,
            "vocab_size": 64,
        },
        rewinds=False,
        contrasts=[{"rope_parameters": {"rope_theta": 10.0}}],
    ),
    "qwen3_5-q4": dict(config=Q4, quantize=dict(group_size=64, bits=4), rewinds=False),
    "qwen3_5-hf": dict(
        config=text(),
        layout="hf",
        hf=hf,
        fills=ONE_LESS,
        rewinds=False,
    ),
    "qwen3_5-hf-text": dict(
        config=text(attention_bias=True),
        layout="hf",
        fills=ONE_LESS,
        rewinds=False,
    ),
}
