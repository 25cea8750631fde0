from .common import NO_SCALING, YARN_ROPE, but
from .llama import LLAMA, LLAMA_Q

QWEN2 = {
    **but(LLAMA, "rope_theta"),
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 42,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "use_sliding_window": False,
    "sliding_window": 8,
    "max_window_layers": 1,
}

CASES = {
    # The base is the default, 1000000.
    "qwen2-base": dict(
        config=but(QWEN2, rms_norm_eps=1e-2),
        contrasts=[{"rope_theta": 10000.0}, {"rms_norm_eps": 1e-6}],
    ),
    # Tied, because that is the default; the stored output layer goes.
    "qwen2-tied-traditional": dict(
        config=but(
            QWEN2,
            "tie_word_embeddings",
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=2,
            rope_theta=500.0,
            rope_traditional=True,
        ),
        legacy={"lm_head.weight": [96, 48]},
        contrasts=[{"rope_theta": 1000000.0}, {"rope_traditional": False}],
    ),
    "qwen2-yarn": dict(
        config=but(QWEN2, hidden_size=64, num_attention_heads=2, rope_scaling=YARN_ROPE, rope_theta=1000.0),
        contrasts=[NO_SCALING],
    ),
    "qwen2-q4-tied": dict(
        config=but(LLAMA_Q, model_type="qwen2", tie_word_embeddings=True),
        quantize=dict(group_size=64, bits=4),
    ),
}
