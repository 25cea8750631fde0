from .common import SMALL_IDS, but
from .llama import LLAMA, LLAMA_Q

GLM4 = {
    **LLAMA,
    "model_type": "glm4",
    "architectures": ["Glm4ForCausalLM"],
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 14,
    "attention_bias": True,
    "partial_rotary_factor": 0.6,
}

CASES = {
    "glm4-base": dict(
        config=but(GLM4, rope_theta=500.0, rms_norm_eps=1e-2),
        contrasts=[
            {"rope_theta": 10000.0},
            {"rms_norm_eps": 1e-5},
            {"partial_rotary_factor": 1.0},
            {"rope_traditional": False},
        ],
    ),
    "glm4-untraditional": dict(
        config=but(GLM4, "max_position_embeddings", attention_bias=False, rope_traditional=False),
        contrasts=[{"rope_traditional": True}],
    ),
    "glm4-q4-g64": dict(
        config={**GLM4, **LLAMA_Q, "model_type": "glm4", "head_dim": 32, "partial_rotary_factor": 0.5},
        quantize=dict(group_size=64, bits=4),
    ),
    "glm4-hf": dict(
        config=but(
            GLM4,
            "rope_theta",
            "partial_rotary_factor",
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.6,
            },
            **SMALL_IDS,
        ),
        reads_as={"rope_theta": 500.0, "partial_rotary_factor": 0.6},
        dtype="bfloat16",
        layout="hf",
    ),
}
