from .common import NO_SCALING, SMALL_IDS, YARN_ROPE, but
from .llama import LINEAR_ROPE, LLAMA, LLAMA_Q

OLMO2 = {
    **LLAMA,
    "model_type": "olmo2",
    "architectures": ["Olmo2ForCausalLM"],
    "intermediate_size": 48,
    "num_key_value_heads": 2,
}

CASES = {
    "olmo2-base": dict(
        config=but(
            OLMO2,
            head_dim=14,
            rope_theta=500.0,
            rms_norm_eps=1e-2,
            rope_traditional=True,
            attention_bias=True,
            mlp_bias=True,
        ),
        legacy={"model.layers.0.self_attn.rotary_emb.inv_freq": [7]},
        contrasts=[{"rope_theta": 10000.0}, {"rms_norm_eps": 1e-5}, {"rope_traditional": False}],
    ),
    # The keys that mlx-lm has defaults for are absent: theta 10000, tied, as many KV heads as heads.
    "olmo2-defaults-linear": dict(
        config=but(
            OLMO2,
            "num_key_value_heads",
            "max_position_embeddings",
            "rope_theta",
            "tie_word_embeddings",
            rope_scaling=LINEAR_ROPE,
        ),
        contrasts=[NO_SCALING],
    ),
    "olmo2-q4-g64": dict(
        config=but(LLAMA_Q, model_type="olmo2", rope_scaling=YARN_ROPE),
        quantize=dict(group_size=64, bits=4),
        contrasts=[NO_SCALING],
    ),
    "olmo2-hf": dict(
        config=but(
            OLMO2,
            "rope_theta",
            attention_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            **SMALL_IDS,
        ),
        reads_as={"rope_theta": 500.0},
        dtype="bfloat16",
        layout="hf",
    ),
}
