from .common import SMALL_IDS, but

# Of three layers the second sees all, without positions.
COHERE2 = {
    "model_type": "cohere2",
    "architectures": ["Cohere2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "head_dim": 10,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 500.0,
    "vocab_size": 96,
    "layer_norm_eps": 1e-2,
    "logit_scale": 0.6,
    "sliding_window": 8,
    "sliding_window_pattern": 2,
}
TYPES = ["sliding_attention", "full_attention", "sliding_attention"]

CASES = {
    "cohere2-base": dict(
        config=but(COHERE2, attention_bias=True, layer_norm_bias=True),
        contrasts=[
            {"rope_theta": 50000.0},
            {"layer_norm_eps": 1e-5},
            {"logit_scale": 0.0625},
            {"sliding_window": 9},
            {"sliding_window_pattern": 3},
        ],
    ),
    # The keys that mlx-lm has defaults for are absent, but for those that would make it large.
    "cohere2-defaults": dict(
        config=but(
            COHERE2,
            "head_dim",
            "rope_theta",
            "layer_norm_eps",
            "logit_scale",
            "sliding_window",
            "sliding_window_pattern",
            hidden_size=128,
            num_attention_heads=1,
            num_key_value_heads=1,
            num_hidden_layers=4,
        ),
        # The default scale of the logits is small; the layers' answers are to match the embeddings.
        fills={r"embed_tokens\.weight$": (0.0, 5.0), r"(o|down)_proj\.weight$": (0.0, 1.0)},
        contrasts=[{"rope_theta": 500.0}, {"sliding_window_pattern": 3}],
    ),
    "cohere2-q4-g64": dict(
        config=but(COHERE2, hidden_size=128, head_dim=32, intermediate_size=128),
        quantize=dict(group_size=64, bits=4),
    ),
    "cohere2-hf": dict(
        config=but(COHERE2, "sliding_window_pattern", layer_types=TYPES, **SMALL_IDS),
        reads_as={"sliding_window_pattern": 2},
        dtype="float16",
        layout="hf",
    ),
}
