"""Mistral, and the other names under which mlx-lm knows llama."""

from .common import but
from .llama import LLAMA

MISTRAL = {
    **but(LLAMA),
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 14,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
}

CASES = {
    "mistral-base": dict(config=MISTRAL, contrasts=[{"rope_theta": 10000.0}]),
    # Without layer_types all layers see all positions, as in mlx-lm.
    "mistral-window-unread": dict(
        config=but(MISTRAL, sliding_window=8),
        contrasts=[{"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}],
    ),
    "iquestcoder-base": dict(
        config=but(
            MISTRAL,
            model_type="iquestcoder",
            architectures=["IQuestCoderForCausalLM"],
            num_key_value_heads=3,
            head_dim=10,
            rope_theta=500000.0,
        )
    ),
    "xverse-base": dict(
        config=but(
            LLAMA,
            model_type="xverse",
            architectures=["XverseForCausalLM"],
            num_key_value_heads=4,
            rms_norm_eps=1e-6,
            max_tokenizer_truncation=64,
        )
    ),
}
