from .common import but
from .gemma4_text import FILLS_E, FILLS_MOE, GEMMA4_E, GEMMA4_MOE, SIZES_Q

E = but(GEMMA4_E, "architectures", "vocab_size")
MOE = but(GEMMA4_MOE, "architectures", "vocab_size", num_hidden_layers=2)
GEMMA4 = {
    "model_type": "gemma4",
    "architectures": ["Gemma4ForConditionalGeneration"],
    "vocab_size": 64,
    "text_config": E,
    "vision_config": {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "global_head_dim": 4,
        "num_hidden_layers": 1,
        "image_size": 8,
        "patch_size": 4,
        "position_embedding_size": 4,
    },
}
FILLS_HF = {**FILLS_MOE, r"experts\.(gate_up|down)_proj$": (0.0, 0.5)}
HF_MOE = but(
    MOE,
    "global_head_dim",
    "num_global_key_value_heads",
    layer_types=["sliding_attention", "full_attention"],
    vocab_size=64,
)

CASES = {
    # The numbers of heads are absent, and of two vocabulary sizes the outer one counts.
    "gemma4-base": dict(
        config=but(
            GEMMA4,
            text_config=but(
                E, "num_attention_heads", "num_key_value_heads", head_dim=6, global_head_dim=8, vocab_size=32
            ),
        ),
        fills=FILLS_E,
    ),
    "gemma4-unified": dict(
        config=but(
            GEMMA4,
            "vision_config",
            model_type="gemma4_unified",
            architectures=["Gemma4UnifiedForConditionalGeneration"],
            text_config=but(E, num_hidden_layers=3, num_kv_shared_layers=1),
        ),
        fills=FILLS_E,
        legacy={
            "audio_tower.layers.0.norm.weight": [8],
            "embed_audio.embedding_projection.weight": [24, 8],
            "model.embed_vision.embedding_projection.weight": [24, 8],
            "model.multi_modal_projector.weight": [8],
            "model.vision_embedder.patch.weight": [8],
            "vision_tower.layers.0.norm.weight": [8],
        },
    ),
    "gemma4-q4": dict(
        config=but(GEMMA4, text_config=but(MOE, **SIZES_Q, moe_intermediate_size=64)),
        fills={**FILLS_MOE, r"post_\w+norm\w*\.weight$": (8.0, 4.0)},
        dtype="bfloat16",
        quantize=dict(group_size=64, bits=4),
    ),
    # Sizes of full layers and of the vocabulary where transformers writes them.
    "gemma4-hf": dict(
        config=but(
            GEMMA4,
            "vocab_size",
            audio_config=None,
            text_config={
                **HF_MOE,
                "per_layer_config": {"1": {"head_dim": 12, "num_key_value_heads": 1}},
            },
        ),
        reads_as={
            "vocab_size": 64,
            "text_config": {**HF_MOE, "global_head_dim": 12, "num_global_key_value_heads": 1},
        },
        fills=FILLS_HF,
        dtype="bfloat16",
        layout="hf",
    ),
}
