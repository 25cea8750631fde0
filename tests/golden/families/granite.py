from .common import NO_SCALING, SMALL_IDS, but
from .llama import LINEAR_ROPE, LLAMA, LLAMA_Q

MULTIPLIERS = {
    "logits_scaling": 1.7,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 0.5,
    "residual_multiplier": 0.6,
}
GRANITE = {
    **LLAMA,
    **MULTIPLIERS,
    "model_type": "granite",
    "architectures": ["GraniteForCausalLM"],
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "attention_bias": False,
    "mlp_bias": False,
}
ONES = [{key: 1.0} for key in MULTIPLIERS]

CASES = {
    "granite-base": dict(
        config=but(GRANITE, rope_theta=500.0, rms_norm_eps=1e-2, attention_bias=True, mlp_bias=True),
        contrasts=[*ONES, {"rope_theta": 10000.0}, {"rms_norm_eps": 1e-5}],
    ),
    # Tied by default; converters may leave the output layer in.
    "granite-tied-linear": dict(
        config=but(GRANITE, "tie_word_embeddings", logits_scaling=0.8, rope_scaling=LINEAR_ROPE),
        legacy={"lm_head.weight": [96, 40]},
        contrasts=[*ONES, NO_SCALING],
    ),
    # mlx-lm keeps the layers that write into the residual stream at 8 bits.
    "granite-q4-g64": dict(
        config={**GRANITE, **LLAMA_Q, "model_type": "granite"}, quantize=dict(group_size=64, bits=4)
    ),
    "granite-hf": dict(
        config=but(GRANITE, attention_bias=True, **SMALL_IDS),
        dtype="bfloat16",
        layout="hf",
    ),
}
