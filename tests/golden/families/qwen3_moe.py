from .common import but
from .qwen3 import QWEN3

QWEN3_MOE = {
    **QWEN3,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
# Every row length is a multiple of 64.
QWEN3_MOE_Q = but(
    QWEN3_MOE,
    hidden_size=128,
    intermediate_size=128,
    num_hidden_layers=2,
    num_experts=4,
    moe_intermediate_size=64,
    head_dim=32,
)

CASES = {
    # Sorted experts in the prompt (80 choices), unsorted ones in decoding (2).
    "qwen3-moe-base": dict(
        config=but(QWEN3_MOE, rms_norm_eps=1e-2),
        contrasts=[
            {"norm_topk_prob": False},
            {"num_experts_per_tok": 3},
            {"rope_theta": 10000.0},
            {"rms_norm_eps": 1e-6},
        ],
    ),
    # Experts in layer 1 only; one expert a token, so the prompt's 40 choices are not sorted.
    "qwen3-moe-dense-layers": dict(
        config=but(
            QWEN3_MOE,
            num_hidden_layers=4,
            decoder_sparse_step=2,
            mlp_only_layers=[3],
            num_experts_per_tok=1,
            norm_topk_prob=False,
            tie_word_embeddings=True,
            num_key_value_heads=1,
        ),
        legacy={"lm_head.weight": [96, 40]},
        contrasts=[{"norm_topk_prob": True}],
    ),
    # The router in 8 bits, as mlx-lm's predicate says.
    "qwen3-moe-q4": dict(config=QWEN3_MOE_Q, quantize=dict(group_size=64, bits=4)),
    "qwen3-moe-q4-g32-bf16": dict(
        config=but(QWEN3_MOE_Q, mlp_only_layers=[0], tie_word_embeddings=True),
        dtype="bfloat16",
        quantize=dict(
            group_size=32,
            bits=4,
            overrides={"model.layers.1.mlp.switch_mlp.down_proj": {"group_size": 64, "bits": 6}},
        ),
    ),
    "qwen3-moe-hf": dict(
        config=but(QWEN3_MOE, mlp_only_layers=[1], head_dim=12),
        layout="hf",
        shards=2,
    ),
    # transformers 5 has other names for two settings, which mlx-lm does not know.
    "qwen3-moe-hf-5": dict(
        config=but(
            QWEN3_MOE,
            "num_experts",
            "rope_theta",
            num_local_experts=5,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        ),
        reads_as={"num_experts": 5, "rope_theta": 500.0},
        layout="hf",
        contrasts=[{"rope_theta": 10000.0}],
    ),
}
