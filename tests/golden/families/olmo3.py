from .common import NO_SCALING, SMALL_IDS, YARN_ROPE, but
from .llama import LLAMA, LLAMA_Q

# The last of four layers sees all, and it alone is scaled.
OLMO3 = {
    **LLAMA,
    "model_type": "olmo3",
    "architectures": ["Olmo3ForCausalLM"],
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "sliding_window": 8,
    "rope_theta": 1000.0,
    "rope_scaling": YARN_ROPE,
}
TYPES = ["full_attention", "sliding_attention"]
FULL = but(YARN_ROPE, "type", rope_type="yarn", rope_theta=1000.0)

CASES = {
    "olmo3-base": dict(
        config=but(OLMO3, "tie_word_embeddings", head_dim=14, rms_norm_eps=1e-2, attention_bias=True),
        contrasts=[
            NO_SCALING,
            {"sliding_window": 9},
            {"rope_theta": 10000.0},
            {"rms_norm_eps": 1e-5},
            {"layer_types": ["full_attention", *["sliding_attention"] * 3]},
        ],
    ),
    "olmo3-types-tied": dict(
        config=but(
            OLMO3,
            "num_key_value_heads",
            num_hidden_layers=2,
            layer_types=TYPES,
            tie_word_embeddings=True,
        ),
        contrasts=[NO_SCALING, {"layer_types": TYPES[::-1]}],
    ),
    "olmo3-q4-g32": dict(
        config=but(
            {**OLMO3, **LLAMA_Q}, model_type="olmo3", num_hidden_layers=2, layer_types=TYPES
        ),
        quantize=dict(group_size=32, bits=4),
    ),
    "olmo3-hf": dict(
        config=but(
            OLMO3,
            "rope_theta",
            "rope_scaling",
            num_hidden_layers=3,
            layer_types=[*TYPES, "sliding_attention"],
            rope_parameters={
                "full_attention": FULL,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
            **SMALL_IDS,
        ),
        reads_as={"rope_theta": 1000.0, "rope_scaling": FULL},
        contrasts=[NO_SCALING],
        layout="hf",
    ),
}
