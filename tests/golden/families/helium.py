from .common import SMALL_IDS, but
from .llama import LLAMA, LLAMA_Q

HELIUM = {
    **LLAMA,
    "model_type": "helium",
    "architectures": ["HeliumForCausalLM"],
    "num_key_value_heads": 2,
    "head_dim": 10,
    "attention_bias": True,
    "mlp_bias": False,
}

CASES = {
    # 40 features are 6 heads of 6, and a rest that no head has.
    "helium-base": dict(
        config=but(
            HELIUM,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=6,
            rope_theta=500.0,
            rms_norm_eps=1e-2,
            mlp_bias=True,
        ),
        contrasts=[{"rope_theta": 100000.0}, {"rms_norm_eps": 1e-8}],
    ),
    # mlx-lm wants an output layer even of a tied model, and then makes no use of it.
    "helium-tied": dict(
        config=but(HELIUM, attention_bias=False, rope_theta=100000.0, tie_word_embeddings=True),
        fills={r"^lm_head\.weight$": (0.0, 17.0)},
        contrasts=[{"tie_word_embeddings": False}],
    ),
    "helium-q4-g64": dict(
        config={**HELIUM, **LLAMA_Q, "model_type": "helium", "head_dim": 32},
        quantize=dict(group_size=64, bits=4),
    ),
    "helium-hf": dict(
        config=but(
            HELIUM,
            "rope_theta",
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            **SMALL_IDS,
        ),
        reads_as={"rope_theta": 500.0},
        dtype="bfloat16",
        layout="hf",
    ),
}
