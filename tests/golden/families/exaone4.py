from .common import NO_SCALING, SMALL_IDS, but
from .llama import LLAMA, LLAMA3_ROPE, LLAMA_Q

EXAONE4 = {
    **LLAMA,
    "model_type": "exaone4",
    "architectures": ["Exaone4ForCausalLM"],
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 16,
    "rope_theta": 500.0,
    "rope_scaling": LLAMA3_ROPE,
    "sliding_window": 8,
    "sliding_window_pattern": "LG",
}
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]

CASES = {
    # The pattern starts again with the third layer.
    "exaone4-base": dict(
        config=but(EXAONE4, rms_norm_eps=1e-2),
        contrasts=[
            NO_SCALING,
            {"rope_theta": 10000.0},
            {"rms_norm_eps": 1e-5},
            {"sliding_window": 9},
            {"sliding_window_pattern": "LGG"},
            {"sliding_window_pattern": None},
        ],
    ),
    "exaone4-all-global-tied": dict(
        config=but(
            EXAONE4,
            num_hidden_layers=2,
            sliding_window=None,
            sliding_window_pattern=None,
            tie_word_embeddings=True,
        ),
        contrasts=[NO_SCALING],
    ),
    "exaone4-q4-g64": dict(
        config={**EXAONE4, **LLAMA_Q, "model_type": "exaone4", "head_dim": 32, "rope_scaling": None},
        quantize=dict(group_size=64, bits=4),
    ),
    "exaone4-hf": dict(
        config=but(
            EXAONE4,
            "rope_theta",
            "rope_scaling",
            "sliding_window_pattern",
            layer_types=TYPES,
            rope_parameters={**LLAMA3_ROPE, "rope_theta": 500.0},
            **SMALL_IDS,
        ),
        reads_as={"rope_theta": 500.0, "rope_scaling": LLAMA3_ROPE, "sliding_window_pattern": "LG"},
        dtype="bfloat16",
        layout="hf",
    ),
}
