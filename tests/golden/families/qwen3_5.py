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

# As small as it goes: of no use but to be left out.
VISION = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 1,
    "patch_size": 2,
    "temporal_patch_size": 1,
    "spatial_merge_size": 1,
    "num_position_embeddings": 4,
    "out_hidden_size": 48,
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
        config=text(attention_bias=True) | {"vision_config": VISION},
        layout="hf",
        fills=ONE_LESS,
        legacy={"mtp.norm.weight": [48], "mtp.layers.0.input_layernorm.weight": [48]},
        rewinds=False,
    ),
}
