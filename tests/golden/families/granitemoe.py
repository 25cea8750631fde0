from .common import NO_SCALING, YARN_ROPE, but

GRANITEMOE = {
    "model_type": "granitemoe",
    "architectures": ["GraniteMoeForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "attention_bias": False,
    "attention_multiplier": 0.5,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.7,
    "logits_scaling": 0.6,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
}

CASES = {
    "granitemoe-base": dict(
        config=but(GRANITEMOE, rms_norm_eps=1e-2),
        contrasts=[
            {"attention_multiplier": 0.316},
            {"embedding_multiplier": 1.0},
            {"residual_multiplier": 1.0},
            {"logits_scaling": 1.0},
            {"num_experts_per_tok": 3},
            {"rms_norm_eps": 1e-6},
            {"rope_theta": 10000.0},
        ],
    ),
    "granitemoe-bias-tied-yarn": dict(
        config=but(
            GRANITEMOE,
            "tie_word_embeddings",
            attention_bias=True,
            hidden_size=48,
            num_attention_heads=3,
            num_key_value_heads=1,
            num_experts_per_tok=1,
            rope_scaling=YARN_ROPE,
            embedding_multiplier=1.5,
        ),
        contrasts=[NO_SCALING],
    ),
    # Router, output projections and head in 8 bits, as mlx-lm's predicate says.
    "granitemoe-q4": dict(
        config=but(GRANITEMOE, hidden_size=128, intermediate_size=64, num_local_experts=4),
        quantize=dict(group_size=64, bits=4),
    ),
    "granitemoe-hf": dict(
        config=but(GRANITEMOE, tie_word_embeddings=True, logits_scaling=1.5),
        layout="hf",
        contrasts=[{"logits_scaling": 1.0}],
    ),
}
