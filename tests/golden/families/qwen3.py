from .common import NO_SCALING, YARN_ROPE, but
from .llama import LLAMA

QWEN3 = {
    **LLAMA,
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
QWEN3_Q = {
    **QWEN3,
    "hidden_size": 128,
    "intermediate_size": 128,
    "head_dim": 32,
    "vocab_size": 96,
}

CASES = {
    "qwen3-base": dict(
        config=but(QWEN3, rms_norm_eps=1e-2, rope_theta=1000000.0), contrasts=[{"rms_norm_eps": 1e-6}]
    ),
    "qwen3-untied-yarn": dict(
        config=but(
            QWEN3,
            tie_word_embeddings=False,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            rope_scaling=but(YARN_ROPE, "type", rope_type="yarn"),
        ),
        contrasts=[NO_SCALING],
    ),
    "qwen3-rope-parameters": dict(
        config=but(
            QWEN3, "rope_theta", rope_parameters={"rope_type": "default", "rope_theta": 500.0}
        ),
        contrasts=[{"rope_theta": 10000.0}],
    ),
    "qwen3-rope-parameters-yarn": dict(
        config=but(
            QWEN3,
            "rope_theta",
            head_dim=32,
            rope_parameters=but(YARN_ROPE, "type", rope_type="yarn", rope_theta=10000.0),
        ),
        contrasts=[{"rope_scaling": {"rope_type": "default"}}],
    ),
    "qwen3-q4-tied": dict(config=QWEN3_Q, quantize=dict(group_size=64, bits=4)),
    "qwen3-hf": dict(config=but(QWEN3, num_attention_heads=6), dtype="bfloat16", layout="hf"),
}
