from .common import NO_SCALING, but
from .llama import LINEAR_ROPE, LLAMA, LLAMA_Q

SEED_OSS = {
    **LLAMA,
    "model_type": "seed_oss",
    "architectures": ["SeedOssForCausalLM"],
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 18,
    "rms_norm_eps": 1e-6,
    "attention_bias": True,
    "attention_out_bias": False,
    "mlp_bias": False,
    "rope_scaling": {"rope_type": "default"},
    "rope_theta": 2000.0,
}

CASES = {
    "seed_oss-base": dict(config=SEED_OSS, contrasts=[{"rope_theta": 10000.0}]),
    # Tied by default, and the other biases.
    "seed_oss-out-bias": dict(
        config=but(
            SEED_OSS,
            "tie_word_embeddings",
            "rope_theta",
            attention_bias=False,
            attention_out_bias=True,
            mlp_bias=True,
            rope_traditional=True,
            rope_scaling=LINEAR_ROPE,
        ),
        legacy={"lm_head.weight": [96, 40]},
        contrasts=[NO_SCALING, {"rope_traditional": False}],
    ),
    "seed_oss-q4-g64": dict(
        config=but(LLAMA_Q, model_type="seed_oss", head_dim=32, attention_bias=True),
        quantize=dict(group_size=64, bits=4),
    ),
}
