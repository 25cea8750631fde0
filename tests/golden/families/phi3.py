from .common import NO_SCALING, SMALL_IDS, but

PHI3 = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
PHI3_Q = {**PHI3, "hidden_size": 128, "intermediate_size": 128}
# Six wavelengths: 12 of 20 features turn.
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.2, 1.9, 2.5, 4.0, 7.5, 16.0],
}
LONG = but(
    PHI3,
    num_attention_heads=2,
    num_key_value_heads=1,
    partial_rotary_factor=0.6,
    rope_scaling=LONGROPE,
    max_position_embeddings=2048,
    original_max_position_embeddings=32,
)

CASES = {
    "phi3-base": dict(
        config=but(
            PHI3,
            partial_rotary_factor=0.4,
            rope_traditional=True,
            rope_theta=500.0,
            rms_norm_eps=1e-2,
            sliding_window=2047,
        ),
        contrasts=[
            {"partial_rotary_factor": 0.8},
            {"rope_traditional": False},
            {"rope_theta": 10000.0},
            {"rms_norm_eps": 1e-5},
        ],
    ),
    # 14 of 20 features turn, in float64.
    "phi3-defaults": dict(
        config=but(
            PHI3,
            "num_key_value_heads",
            "max_position_embeddings",
            "rope_theta",
            "tie_word_embeddings",
            num_attention_heads=2,
            partial_rotary_factor=0.7,
        ),
    ),
    # What `rope_scaling` says of the original length, and `rope_traditional`, mlx-lm does not read.
    "phi3-longrope-tied": dict(
        config=but(
            LONG,
            tie_word_embeddings=True,
            rope_traditional=True,
            rope_scaling={**LONGROPE, "original_max_position_embeddings": 500},
        ),
        contrasts=[
            NO_SCALING,
            {"original_max_position_embeddings": 500},
            {"max_position_embeddings": 256},
            {"rope_scaling": {**LONGROPE, "long_factor": LONGROPE["short_factor"]}},
            {"rope_theta": 500.0},
        ],
    ),
    "phi3-su-defaults": dict(
        config=but(
            LONG,
            "max_position_embeddings",
            "original_max_position_embeddings",
            rope_scaling={**LONGROPE, "type": "su"},
        ),
        contrasts=[NO_SCALING, {"max_position_embeddings": 4096}, {"original_max_position_embeddings": 64}],
    ),
    # mlx-lm wants long factors here too, and does nothing with them.
    "phi3-linear": dict(
        config=but(PHI3, rope_scaling={"type": "linear", "factor": 4.0, "long_factor": []}),
        contrasts=[NO_SCALING],
    ),
    "phi3-q4-g32": dict(
        config=but(
            PHI3_Q,
            rope_scaling={"type": "longrope", "short_factor": [1.0], "long_factor": [2.0**(i / 4) for i in range(16)]},
            original_max_position_embeddings=64,
        ),
        quantize=dict(group_size=32, bits=4),
        contrasts=[NO_SCALING],
    ),
    "phi3-hf": dict(
        config=but(PHI3, partial_rotary_factor=0.4, rope_theta=500.0, **SMALL_IDS),
        layout="hf",
        dtype="bfloat16",
    ),
    # transformers takes the long factors too, because the prompt is longer than 32.
    "phi3-hf-rope-parameters": dict(
        config=but(
            LONG,
            "partial_rotary_factor",
            "rope_theta",
            "rope_scaling",
            **SMALL_IDS,
            rope_parameters={
                **but(LONGROPE, "type"),
                "rope_type": "longrope",
                "rope_theta": 1000.0,
                "partial_rotary_factor": 0.6,
                "original_max_position_embeddings": 32,
            },
        ),
        reads_as={"rope_theta": 1000.0, "rope_scaling": LONGROPE, "partial_rotary_factor": 0.6},
        contrasts=[NO_SCALING],
        layout="hf",
    ),
}
