from .common import YARN_ROPE, but

QWEN3_NEXT = {
    "model_type": "qwen3_next",
    "architectures": ["Qwen3NextForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "full_attention_interval": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "attention_bias": False,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 4,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 24,
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.25,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "vocab_size": 64,
}
# Norms whose scales Hugging Face's checkpoints store less 1; that of a gated delta net is none of them.
ONE_LESS = {r"(layernorm|model\.norm|[qk]_norm)\.weight$": (0.0, 0.5)}

CASES = {
    # The prompt is longer than a chunk of the gated delta rule.
    "qwen3_next-base": dict(
        config=but(QWEN3_NEXT, rms_norm_eps=1e-3),
        prompt_tokens=100,
        rewinds=False,
        contrasts=[
            {"rms_norm_eps": 1e-6},
            {"norm_topk_prob": False},
            {"num_experts_per_tok": 1},
            {"rope_theta": 100.0},
            {"partial_rotary_factor": 0.5},
        ],
    ),
    # Layers 0 and 2 are dense by the step, 1 by the list; layer 3 attends, as every fourth does.
    "qwen3_next-defaults": dict(
        config=but(
            QWEN3_NEXT,
            "norm_topk_prob",
            "tie_word_embeddings",
            "full_attention_interval",
            num_hidden_layers=4,
            decoder_sparse_step=2,
            mlp_only_layers=[1],
            attention_bias=True,
            linear_conv_kernel_dim=3,
            linear_num_key_heads=1,
            linear_num_value_heads=3,
            rope_scaling=YARN_ROPE,
            partial_rotary_factor=0.7,
        ),
        rewinds=False,
        contrasts=[
            {"norm_topk_prob": True},
            {"rope_scaling": None},
            {"partial_rotary_factor": 0.25},
        ],
    ),
    "qwen3_next-q4": dict(
        config=but(
            QWEN3_NEXT,
            hidden_size=128,
            intermediate_size=64,
            moe_intermediate_size=64,
            shared_expert_intermediate_size=64,
            head_dim=32,
            linear_value_head_dim=16,
            mlp_only_layers=[2],
            tie_word_embeddings=True,
        ),
        quantize=dict(group_size=64, bits=4),
        rewinds=False,
    ),
    "qwen3_next-hf": dict(
        config=but(QWEN3_NEXT, attention_bias=True),
        layout="hf",
        fills=ONE_LESS,
        legacy={"mtp.norm.weight": [48], "mtp.layers.0.mlp.gate.weight": [6, 48]},
        rewinds=False,
        shards=2,
    ),
}
