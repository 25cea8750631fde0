"""The golden cases as data: for each, a config.json and what is special about its checkpoint.

A case's fields:
  config    the config.json, but for what quantization adds
  dtype     the dtype of the stored floating tensors (expected values are always float32)
  quantize  group_size and bits; `overrides` {path: params or False}; `say_false`: paths for which the
            config says so; `bare`: the oldest config layout
  contrasts sets of config values; under each, the same weights must give clearly other values, so
            that a reader who ignores the key fails the case
  reads_as  config values handed to mlx-lm on top of config.json, where it does not read the file's spelling
  shards    the number of weight files
  legacy    {tensor name: shape}: tensors that old checkpoints carry and a loader must leave out
  skips     paths that mlx-lm leaves dense because a row is no multiple of the group size
"""

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
# Every row length is a multiple of 128, the largest group.
LLAMA_Q = {
    **LLAMA,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}
QWEN3_Q = {
    **QWEN3,
    "hidden_size": 128,
    "intermediate_size": 128,
    "head_dim": 32,
    "vocab_size": 128,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"type": "linear", "factor": 4.0}
YARN_ROPE = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
YARN_ALL_KEYS = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 2,
    "beta_slow": 0.5,
    "mscale": 1.2,
    "mscale_all_dim": 0.4,
}
NO_SCALING = {"rope_scaling": None}


def but(base, *absent, **changed):
    """`base` without the keys in `absent` and with those in `changed`."""
    return {k: v for k, v in {**base, **changed}.items() if k not in absent}


def without_each(scaling):
    """Contrasts that fall back to the default of each key that has one."""
    needed = ("type", "rope_type", "factor")
    return [{"rope_scaling": but(scaling, key)} for key in scaling if key not in needed]


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
    **{
        f"llama-q{bits}-g64": dict(config=LLAMA_Q, quantize=dict(group_size=64, bits=bits))
        for bits in (2, 3, 4, 5, 6, 8)
    },
    "llama-q4-g32-bare": dict(
        config=but(LLAMA_Q, attention_bias=True), quantize=dict(group_size=32, bits=4, bare=True)
    ),
    "llama-q4-g128": dict(config=LLAMA_Q, quantize=dict(group_size=128, bits=4)),
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
    "qwen3-q4-tied": dict(config=QWEN3_Q, quantize=dict(group_size=64, bits=4)),
}
