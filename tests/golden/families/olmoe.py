from .common import NO_SCALING, but
from .llama import LLAMA3_ROPE

OLMOE = {
    "model_type": "olmoe",
    "architectures": ["OlmoeForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 40,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": False,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
}

CASES = {
    "olmoe-base": dict(
        config=but(OLMOE, rms_norm_eps=1e-2, clip_qkv=None),
        contrasts=[
            {"norm_topk_prob": True},
            {"num_experts_per_tok": 3},
            {"rms_norm_eps": 1e-5},
            {"rope_theta": 10000.0},
        ],
    ),
    "olmoe-bias-normed": dict(
        config=but(
            OLMOE,
            attention_bias=True,
            mlp_bias=True,
            norm_topk_prob=True,
            head_dim=16,
            rope_traditional=True,
            rope_scaling=LLAMA3_ROPE,
            tie_word_embeddings=True,
        ),
        contrasts=[{"norm_topk_prob": False}, {"rope_traditional": False}, NO_SCALING],
    ),
    # Tied, theta 10000, as many key heads as heads, weights as they are.
    "olmoe-defaults": dict(
        config=but(
            OLMOE,
            "num_key_value_heads",
            "norm_topk_prob",
            "rope_theta",
            "max_position_embeddings",
            "tie_word_embeddings",
        ),
        contrasts=[{"norm_topk_prob": True}, {"rope_theta": 500.0}],
    ),
    "olmoe-q4": dict(
        config=but(OLMOE, hidden_size=128, intermediate_size=64, num_experts=4),
        dtype="bfloat16",
        quantize=dict(
            group_size=32,
            bits=4,
            overrides={
                f"model.layers.{i}.mlp.gate": {"group_size": 64, "bits": 8} for i in range(2)
            },
        ),
    ),
    "olmoe-hf": dict(config=but(OLMOE, num_experts=4, norm_topk_prob=True), layout="hf"),
}
