from .common import but
from .qwen3_5 import TEXT, hf
from .qwen3_next import ONE_LESS

EXPERTS = {
    "model_type": "qwen3_5_moe_text",
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 24,
}
QWEN3_5_MOE = {
    "model_type": "qwen3_5_moe",
    "architectures": ["Qwen3_5MoeForConditionalGeneration"],
    "text_config": but(TEXT, "intermediate_size", **EXPERTS),
}


def text(*absent, **changed):
    return but(QWEN3_5_MOE, text_config=but(QWEN3_5_MOE["text_config"], *absent, **changed))


CASES = {
    "qwen3_5_moe-base": dict(
        config=text(),
        rewinds=False,
        contrasts=[text(norm_topk_prob=False), text(num_experts_per_tok=1)],
    ),
    "qwen3_5_moe-unnormalised": dict(
        config=text(norm_topk_prob=False, full_attention_interval=3, tie_word_embeddings=True),
        rewinds=False,
    ),
    "qwen3_5_moe-q4": dict(
        config=text(
            hidden_size=128,
            head_dim=32,
            linear_value_head_dim=32,
            moe_intermediate_size=64,
            shared_expert_intermediate_size=64,
        ),
        quantize=dict(group_size=64, bits=4),
        rewinds=False,
    ),
    "qwen3_5_moe-hf": dict(
        config=text(), layout="hf", hf=hf, fills=ONE_LESS, rewinds=False
    ),
    # mlx-lm adds the 1 to the norms' scales in bfloat16, transformers in float32.
    "qwen3_5_moe-hf-bf16": dict(
        config=text(),
        dtype="bfloat16",
        layout="hf",
        hf=hf,
        fills=ONE_LESS,
        rewinds=False,
        alone=True,
    ),
}
