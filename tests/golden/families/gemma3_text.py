from .common import but
from .gemma2 import FILLS

GEMMA3_TEXT = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 40,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 14,
    "rms_norm_eps": 1e-6,
    "vocab_size": 64,
    "max_position_embeddings": 256,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "query_pre_attn_scalar": 9,
    "sliding_window": 7,
    "sliding_window_pattern": 2,
}
GEMMA3_Q = {
    **GEMMA3_TEXT,
    "hidden_size": 128,
    "intermediate_size": 128,
    "head_dim": 32,
    "num_hidden_layers": 2,
}
LINEAR = {"rope_type": "linear", "factor": 8.0}

CASES = {
    "gemma3_text-base": dict(
        config=but(
            GEMMA3_TEXT,
            rms_norm_eps=1e-2,
            rope_theta=20000.0,
            rope_local_base_freq=500.0,
            rope_scaling=LINEAR,
        ),
        fills=FILLS,
        contrasts=[
            {"rms_norm_eps": 1e-6},
            {"rope_theta": 100.0},
            {"rope_local_base_freq": 10000.0},
            {"rope_scaling": None},
            {"query_pre_attn_scalar": 14},
            {"sliding_window": 8},
            {"sliding_window_pattern": 3},
        ],
    ),
    # The keys that mlx-lm has defaults for are absent, but for the sizes.
    "gemma3_text-defaults": dict(
        config=but(
            GEMMA3_TEXT,
            "num_attention_heads",
            "num_key_value_heads",
            "rms_norm_eps",
            "max_position_embeddings",
            "rope_theta",
            "rope_local_base_freq",
            "query_pre_attn_scalar",
            "sliding_window",
            "sliding_window_pattern",
            num_hidden_layers=6,
            hidden_size=24,
            intermediate_size=32,
        ),
        fills={r"[qk]_norm\.weight$": (1.0, 0.5), **FILLS},
        contrasts=[
            {"rms_norm_eps": 1e-2},
            {"rope_theta": 100.0},
            {"rope_local_base_freq": 100.0},
            {"query_pre_attn_scalar": 14},
            {"sliding_window": 20},
        ],
    ),
    "gemma3_text-full-untied": dict(
        config=but(GEMMA3_TEXT, sliding_window_pattern=1, num_hidden_layers=2, num_key_value_heads=1),
        fills=FILLS,
        contrasts=[{"sliding_window_pattern": 2}],
    ),
    # The newer spelling of ropes and windows, which mlx-lm does not read.
    "gemma3_text-rope-parameters": dict(
        config=but(
            GEMMA3_TEXT,
            "rope_theta",
            "rope_local_base_freq",
            "sliding_window_pattern",
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_theta": 20000.0, **LINEAR},
                "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
            },
        ),
        reads_as={
            "rope_theta": 20000.0,
            "rope_local_base_freq": 500.0,
            "rope_scaling": LINEAR,
            "sliding_window_pattern": 2,
        },
        fills=FILLS,
        contrasts=[
            {"rope_theta": 1000000.0, "rope_scaling": None},
            {"rope_local_base_freq": 10000.0},
            {"sliding_window_pattern": 3},
        ],
    ),
    "gemma3_text-q4": dict(
        config=GEMMA3_Q, fills=FILLS, dtype="bfloat16", quantize=dict(group_size=64, bits=4)
    ),
    # A size whose root is the same in bfloat16, to which mlx-lm rounds it and transformers does not.
    "gemma3_text-hf": dict(
        config=but(GEMMA3_TEXT, rope_scaling=LINEAR, hidden_size=36),
        fills=FILLS,
        dtype="bfloat16",
        layout="hf",
    ),
}
