from .common import but
from .llama import LLAMA, LLAMA_Q

ERNIE = {
    **LLAMA,
    "model_type": "ernie4_5",
    "architectures": ["Ernie4_5ForCausalLM"],
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 18,
    "rope_theta": 2000.0,
    "use_bias": False,
    "tie_word_embeddings": True,
}

CASES = {
    "ernie4_5-base": dict(config=ERNIE, contrasts=[{"rope_theta": 10000.0}]),
    "ernie4_5-bias": dict(
        config=but(
            ERNIE,
            use_bias=True,
            tie_word_embeddings=False,
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=None,
            rms_norm_eps=1e-2,
        ),
        contrasts=[{"rms_norm_eps": 1e-5}],
    ),
    "ernie4_5-q4-g64": dict(
        config=but(LLAMA_Q, model_type="ernie4_5", use_bias=False, head_dim=32),
        quantize=dict(group_size=64, bits=4),
    ),
    "ernie4_5-hf": dict(config=but(ERNIE, use_bias=True), layout="hf"),
}
