from .common import but
from .llama import LLAMA

ROPE = {
    "type": "yarn",
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 8.0,
    "beta_slow": 0.5,
    "mscale": 1.5,
    "mscale_all_dim": 0.5,
    "llama_4_scaling_beta": 0.4,
}
MINISTRAL3 = {
    **but(LLAMA, "rope_theta"),
    "model_type": "ministral3",
    "architectures": ["Ministral3ForCausalLM"],
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 18,
    "sliding_window": None,
    "rope_parameters": ROPE,
}


def other_rope(**changed):
    return {"rope_parameters": {**ROPE, **changed}}


CASES = {
    "ministral3-base": dict(
        config=MINISTRAL3,
        contrasts=[
            other_rope(llama_4_scaling_beta=0.0),
            other_rope(rope_theta=10000.0),
            other_rope(original_max_position_embeddings=32),
            other_rope(type="default"),
        ],
    ),
    "ministral3-sliding-tied": dict(
        config=but(
            MINISTRAL3,
            "tie_word_embeddings",
            "num_key_value_heads",
            num_hidden_layers=3,
            head_dim=10,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        legacy={"lm_head.weight": [96, 40]},
        contrasts=[{"layer_types": ["full_attention"] * 3}],
    ),
    "ministral3-q4-g32": dict(
        config=but(MINISTRAL3, hidden_size=64, head_dim=32, num_attention_heads=2),
        quantize=dict(group_size=32, bits=4),
    ),
}
