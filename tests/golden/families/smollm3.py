from .common import NO_SCALING, but
from .llama import LINEAR_ROPE, LLAMA, LLAMA_Q

SMOLLM3 = {
    **LLAMA,
    "model_type": "smollm3",
    "architectures": ["SmolLM3ForCausalLM"],
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "rope_theta": 2000.0,
    "rms_norm_eps": 1e-6,
    "use_sliding_window": False,
    "sliding_window": None,
}

CASES = {
    "smollm3-base": dict(
        config=but(SMOLLM3, no_rope_layers=[0, 1, 0], rope_scaling=LINEAR_ROPE),
        contrasts=[
            {"no_rope_layers": [1, 1, 0]},
            {"no_rope_layers": [0, 1, 1]},
            {"rope_theta": 10000.0},
            NO_SCALING,
        ],
    ),
    # Every second layer is without positions; tied by default.
    "smollm3-interval": dict(
        config=but(SMOLLM3, "tie_word_embeddings", no_rope_layer_interval=2, attention_bias=True),
        contrasts=[{"no_rope_layer_interval": 4}],
    ),
    # Every fourth, by default; with windows in one layer that has positions and one that has not.
    "smollm3-sliding": dict(
        config=but(
            SMOLLM3,
            num_hidden_layers=4,
            mlp_bias=True,
            rope_traditional=True,
            sliding_window=8,
            layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        ),
        contrasts=[
            {"no_rope_layer_interval": 5},
            {"layer_types": ["full_attention"] * 4},
            {"rope_traditional": False},
        ],
    ),
    "smollm3-q4-tied": dict(
        config=but(
            LLAMA_Q, model_type="smollm3", tie_word_embeddings=True, no_rope_layers=[1, 0], num_key_value_heads=1
        ),
        quantize=dict(group_size=64, bits=4),
    ),
}
