from .common import SMALL_IDS, but

STARCODER2 = {
    "model_type": "starcoder2",
    "architectures": ["Starcoder2ForCausalLM"],
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "norm_epsilon": 1e-2,
    "vocab_size": 96,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
}

CASES = {
    # mlx-lm reads neither the activation nor the window, which published configurations have.
    "starcoder2-base": dict(
        config=but(STARCODER2, hidden_act="gelu_pytorch_tanh", sliding_window=8, use_bias=True),
        contrasts=[{"norm_epsilon": 1e-5}, {"rope_theta": 100000.0}],
    ),
    "starcoder2-defaults": dict(
        config=but(STARCODER2, "norm_epsilon", "rope_theta", "tie_word_embeddings"),
        contrasts=[{"norm_epsilon": 1e-2}, {"rope_theta": 500.0}],
    ),
    "starcoder2-q4-g64": dict(
        config=but(STARCODER2, hidden_size=128, intermediate_size=128),
        quantize=dict(group_size=64, bits=4),
    ),
    "starcoder2-hf": dict(
        config=but(STARCODER2, hidden_act="gelu", **SMALL_IDS), dtype="bfloat16", layout="hf"
    ),
}
