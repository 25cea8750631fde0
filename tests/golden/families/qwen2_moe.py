from .common import but

QWEN2_MOE = {
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

CASES = {
    "qwen2-moe-base": dict(
        config=but(QWEN2_MOE, rms_norm_eps=1e-2),
        contrasts=[{"num_experts_per_tok": 3}, {"rms_norm_eps": 1e-6}, {"rope_theta": 1e6}],
    ),
    # As many key heads as heads, theta 1e6; mlx-lm has an output layer even where it says tied.
    "qwen2-moe-defaults": dict(
        config=but(
            QWEN2_MOE,
            "num_key_value_heads",
            "rope_theta",
            "max_position_embeddings",
            rope_traditional=True,
            tie_word_embeddings=True,
            num_experts_per_tok=1,
        ),
        contrasts=[{"rope_traditional": False}, {"rope_theta": 10000.0}],
    ),
    "qwen2-moe-q4": dict(
        config=but(
            QWEN2_MOE,
            hidden_size=128,
            num_experts=4,
            moe_intermediate_size=64,
            shared_expert_intermediate_size=128,
        ),
        quantize=dict(
            group_size=64,
            bits=4,
            overrides={
                f"model.layers.{i}.mlp.{gate}": {"group_size": 64, "bits": 8}
                for i in range(2)
                for gate in ("gate", "shared_expert_gate")
            },
        ),
    ),
    "qwen2-moe-hf": dict(
        config=but(QWEN2_MOE, num_experts=4, norm_topk_prob=False), dtype="bfloat16", layout="hf"
    ),
}
