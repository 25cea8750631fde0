from .common import but
from .gemma2 import FILLS
from .gemma3_text import GEMMA3_Q, GEMMA3_TEXT, LINEAR

TEXT = but(GEMMA3_TEXT, "architectures", "vocab_size", rope_scaling=LINEAR)
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "image_size": 8,
    "patch_size": 4,
    "vision_use_head": False,
}
GEMMA3 = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "vocab_size": 64,
    "text_config": TEXT,
    "vision_config": VISION,
    "mm_tokens_per_image": 4,
}


# Without the numbers of heads, of which the text model alone would have 4 and 1.
FEW_KEYS = but(
    TEXT, "num_attention_heads", "num_key_value_heads", head_dim=6, num_hidden_layers=2
)

CASES = {
    # Of two vocabulary sizes the outer one counts.
    "gemma3-base": dict(
        config=but(GEMMA3, text_config=but(FEW_KEYS, vocab_size=32)),
        fills=FILLS,
        contrasts=[
            {"text_config": but(FEW_KEYS, **changed)}
            for changed in ({"rope_scaling": None}, {"sliding_window": 8}, {"query_pre_attn_scalar": 14})
        ],
    ),
    "gemma3-q4": dict(
        config=but(
            GEMMA3, text_config=but(GEMMA3_Q, "architectures", "vocab_size", num_hidden_layers=2)
        ),
        fills=FILLS,
        quantize=dict(
            group_size=64,
            bits=4,
            overrides={
                "language_model.model.embed_tokens": {"group_size": 32, "bits": 8},
                "language_model.model.layers.0.self_attn.v_proj": False,
            },
        ),
    ),
    # The vocabulary's size where transformers writes it, and a hidden size as in gemma3_text-hf.
    "gemma3-hf": dict(
        config=but(GEMMA3, "vocab_size", text_config=but(TEXT, hidden_size=36, vocab_size=64)),
        reads_as={"vocab_size": 64},
        fills=FILLS,
        dtype="bfloat16",
        layout="hf",
    ),
}
