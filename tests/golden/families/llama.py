from .common import NO_SCALING, YARN_ROPE, but, without_each

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
# Every row length is a multiple of 128, the largest group.
LLAMA_Q = {
    **LLAMA,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"type": "linear", "factor": 4.0}
YARN_ALL_KEYS = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 2,
    "beta_slow": 0.5,
    "mscale": 1.2,
    "mscale_all_dim": 0.4,
}

CASES = {
    "llama-base": dict(config=LLAMA, contrasts=[{"rope_theta": 500000.0}]),
    "llama-bf16": dict(config=LLAMA, dtype="bfloat16"),
    "llama-f16": dict(config=LLAMA, dtype="float16"),
    # The keys that mlx-lm has defaults for are absent: theta 10000, tied, as many KV heads as heads.
    "llama-defaults": dict(
        config=but(
            LLAMA,
            "num_key_value_heads",
            "max_position_embeddings",
            "rope_theta",
            "tie_word_embeddings",
        )
    ),
    "llama-tied-legacy-keys": dict(
        config=but(LLAMA, tie_word_embeddings=True, rms_norm_eps=1e-2),
        legacy={
            "lm_head.weight": [96, 40],
            "model.layers.0.self_attn.rotary_emb.inv_freq": [5],
            "model.layers.1.self_attn.rotary_emb.inv_freq": [5],
        },
        contrasts=[{"rms_norm_eps": 1e-5}],
    ),
    "llama-gqa-head-dim": dict(
        config=but(
            LLAMA,
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=24,
            rope_theta=500.0,
        ),
        contrasts=[{"rope_theta": 10000.0}],
        shards=3,
    ),
    "llama-bias": dict(config=but(LLAMA, attention_bias=True, mlp_bias=True, num_key_value_heads=2)),
    "llama-rope-traditional": dict(
        config=but(LLAMA, rope_traditional=True), contrasts=[{"rope_traditional": False}]
    ),
    "llama-rope-linear": dict(config=but(LLAMA, rope_scaling=LINEAR_ROPE), contrasts=[NO_SCALING]),
    "llama-rope-llama3": dict(
        config=but(LLAMA, rope_scaling=LLAMA3_ROPE, head_dim=16, num_key_value_heads=1),
        contrasts=[NO_SCALING],
    ),
    "llama-rope-yarn": dict(
        config=but(LLAMA, rope_scaling=YARN_ROPE, head_dim=32, num_key_value_heads=1),
        contrasts=[NO_SCALING, *without_each(YARN_ROPE)],
    ),
    "llama-rope-yarn-all-keys": dict(
        config=but(
            LLAMA,
            rope_scaling=YARN_ALL_KEYS,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            rope_theta=1000.0,
        ),
        contrasts=without_each(YARN_ALL_KEYS),
    ),
    # The newer spelling of rope settings, which mlx-lm's llama does not read.
    "llama-rope-parameters": dict(
        config=but(
            LLAMA, "rope_theta", head_dim=16, rope_parameters={"rope_theta": 500.0, **LLAMA3_ROPE}
        ),
        reads_as={"rope_theta": 500.0, "rope_scaling": LLAMA3_ROPE},
        contrasts=[{"rope_theta": 10000.0, "rope_scaling": None}],
    ),
    "llama-sliding": dict(
        config=but(
            LLAMA,
            num_hidden_layers=3,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        contrasts=[{"layer_types": ["full_attention"] * 3}],
    ),
    **{
        f"llama-q{bits}-g64": dict(config=LLAMA_Q, quantize=dict(group_size=64, bits=bits))
        for bits in (2, 3, 4, 5, 6, 8)
    },
    "llama-q4-g32-bare": dict(
        config=but(LLAMA_Q, attention_bias=True), quantize=dict(group_size=32, bits=4, bare=True)
    ),
    "llama-q4-g128": dict(config=LLAMA_Q, quantize=dict(group_size=128, bits=4)),
    "llama-mxfp4": dict(config=LLAMA_Q, quantize=dict(group_size=32, bits=4, mode="mxfp4")),
    "llama-mxfp8": dict(config=LLAMA_Q, quantize=dict(group_size=32, bits=8, mode="mxfp8")),
    "llama-nvfp4": dict(config=LLAMA_Q, quantize=dict(group_size=16, bits=4, mode="nvfp4")),
    # Experts and routers of mixed models: a mode of its own for a path, and paths that only shapes describe.
    "llama-mxfp4-mixed": dict(
        config=but(LLAMA_Q, tie_word_embeddings=True),
        quantize=dict(
            group_size=32,
            bits=4,
            mode="mxfp4",
            overrides={
                "model.embed_tokens": {"group_size": 64, "bits": 6, "mode": "affine"},
                "model.layers.0.self_attn.q_proj": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
                "model.layers.1.mlp.up_proj": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
                "model.layers.1.mlp.down_proj": False,
            },
        ),
    ),
    "llama-q4-bf16": dict(
        config=LLAMA_Q, dtype="bfloat16", quantize=dict(group_size=64, bits=4)
    ),
    # Dense for three reasons: a predicate that says no, the same written as `false`, and a row of 96.
    "llama-q4-mixed": dict(
        config=but(LLAMA_Q, tie_word_embeddings=True, intermediate_size=96),
        dtype="bfloat16",
        quantize=dict(
            group_size=64,
            bits=4,
            overrides={
                "model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "affine"},
                "model.layers.0.self_attn.v_proj": {"group_size": 64, "bits": 6, "mode": "affine"},
                "model.layers.0.self_attn.k_proj": {"group_size": 128, "bits": 3},
                "model.layers.0.mlp.gate_proj": False,
                "model.layers.1.self_attn.o_proj": False,
            },
            say_false=["model.layers.1.self_attn.o_proj"],
        ),
        skips=["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"],
    ),
    "llama-hf": dict(
        config=but(LLAMA, num_key_value_heads=2, attention_bias=True),
        layout="hf",
        shards=2,
    ),
}
