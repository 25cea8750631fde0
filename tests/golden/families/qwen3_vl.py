from .common import but
from .qwen3 import QWEN3

# Sections of positions, which are the same for text.
MROPE = {"rope_type": "default", "mrope_section": [3, 3, 2], "mrope_interleaved": True}
TEXT = but(
    QWEN3,
    "architectures",
    model_type="qwen3_vl_text",
    rope_theta=500.0,
    rope_scaling=MROPE,
    tie_word_embeddings=False,
)
QWEN3_VL = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "tie_word_embeddings": False,
    "text_config": TEXT,
    "vision_config": {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 2,
        "out_hidden_size": TEXT["hidden_size"],
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 4,
        "patch_size": 2,
    },
}


def tied(text):
    return but(text, tie_word_embeddings=True)


CASES = {
    "qwen3-vl-base": dict(
        config=but(QWEN3_VL, text_config=but(TEXT, rms_norm_eps=1e-2)),
        legacy={"vision_tower.patch_embed.proj.weight": [8, 2, 2, 2, 3]},
        contrasts=[
            {"text_config": but(TEXT, rms_norm_eps=1e-6)},
            {"text_config": but(TEXT, rms_norm_eps=1e-2, rope_theta=10000.0)},
        ],
    ),
    "qwen3-vl-q4-tied": dict(
        config=but(
            QWEN3_VL,
            tie_word_embeddings=True,
            text_config=but(
                tied(TEXT), "rope_scaling", hidden_size=128, intermediate_size=128, head_dim=32
            ),
        ),
        quantize=dict(
            group_size=64,
            bits=4,
            overrides={
                "language_model.model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 8}
            },
        ),
        legacy={"vision_tower.patch_embed.proj.weight": [8, 2, 2, 2, 3]},
    ),
    "qwen3-vl-hf": dict(config=but(QWEN3_VL, text_config=but(TEXT, head_dim=12)), layout="hf"),
}
