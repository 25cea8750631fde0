from .common import but

GEMMA2 = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 40,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 14,
    "rms_norm_eps": 1e-6,
    "vocab_size": 64,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 9,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 12.0,
}
GEMMA2_Q = {
    **GEMMA2,
    "hidden_size": 128,
    "intermediate_size": 128,
    "head_dim": 32,
}
# Norms are stored less 1; those behind a part of a layer keep the embedding from drowning it.
FILLS = {r"post_\w+norm\.weight$": (6.0, 3.0), r"norm\.weight$": (0.0, 0.5)}

CASES = {
    "gemma2-base": dict(
        config=but(GEMMA2, rms_norm_eps=1e-2, rope_theta=500.0),
        fills=FILLS,
        contrasts=[
            {"rms_norm_eps": 1e-6},
            {"rope_theta": 10000.0},
            {"query_pre_attn_scalar": 14},
            {"attn_logit_softcapping": 50.0},
            {"final_logit_softcapping": 30.0},
        ],
    ),
    # The keys that mlx-lm has defaults for are absent; as many KV heads as heads.
    "gemma2-defaults": dict(
        config=but(
            GEMMA2,
            "max_position_embeddings",
            "rope_theta",
            "query_pre_attn_scalar",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            num_key_value_heads=4,
            num_hidden_layers=3,
        ),
        # Scores large enough for the cap of 50.
        fills={**FILLS, r"[qk]_proj\.weight$": (0.0, 2.5)},
        contrasts=[
            {"query_pre_attn_scalar": 14},
            {"attn_logit_softcapping": 1e4},
            {"final_logit_softcapping": 1e4},
        ],
    ),
    "gemma2-rope-traditional": dict(
        config=but(GEMMA2, rope_traditional=True, num_key_value_heads=1),
        fills=FILLS,
        contrasts=[{"rope_traditional": False}],
    ),
    "gemma2-q4": dict(
        config=GEMMA2_Q,
        fills={**FILLS, r"post_\w+norm\.weight$": (16.0, 8.0)},
        quantize=dict(group_size=64, bits=4),
    ),
    "gemma2-hf": dict(config=GEMMA2, fills=FILLS, dtype="bfloat16", layout="hf"),
}
