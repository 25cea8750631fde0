from .common import but

GRANITE = {
    "model_type": "granitemoehybrid",
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 20,
    "shared_intermediate_size": 28,
    "num_hidden_layers": 3,
    "layer_types": ["mamba", "attention", "mamba"],
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "embedding_multiplier": 0.3,
    "attention_multiplier": 0.3,
    "logits_scaling": 0.7,
    "residual_multiplier": 0.7,
    "rms_norm_eps": 1e-5,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "mamba_n_heads": 6,
    "mamba_d_head": 8,
    "mamba_expand": 2,
    "mamba_proj_bias": False,
    "mamba_d_state": 10,
    "mamba_d_conv": 4,
    "mamba_n_groups": 3,
    "mamba_conv_bias": True,
    "position_embedding_type": "rope",
    "rope_theta": 500.0,
    "tie_word_embeddings": True,
}
# transformers norms each group by itself, and has another default for the time steps.
GRANITE_HF = but(GRANITE, mamba_n_groups=1, time_step_limit=[0.0, 1e30])
DENSE = {"num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 20}

CASES = {
    "granitemoehybrid-base": dict(
        config=but(GRANITE, rms_norm_eps=0.02),
        # Time steps that the default limit lengthens.
        fills={r"dt_bias$": (-10.0, 6.0)},
        contrasts=[
            {"rms_norm_eps": 1e-5},
            {"embedding_multiplier": 1.0},
            {"attention_multiplier": 0.6},
            {"logits_scaling": 1.0},
            {"residual_multiplier": 1.0},
            {"num_experts_per_tok": 3},
            {"rope_theta": 10000.0},
            {"position_embedding_type": "nope"},
            {"time_step_limit": [0.0, 100.0]},
        ],
        rewinds=False,
    ),
    "granitemoehybrid-dense-bias": dict(
        config=but(
            GRANITE,
            "num_local_experts",
            "num_experts_per_tok",
            "shared_intermediate_size",
            "mamba_conv_bias",
            attention_bias=True,
            mlp_bias=True,
            mamba_proj_bias=True,
            mamba_n_groups=2,
            position_embedding_type="nope",
            tie_word_embeddings=False,
            time_step_limit=[0.3, 1.1],
            layer_types=["attention", "mamba"],
            num_hidden_layers=2,
        ),
        contrasts=[
            {"time_step_limit": [0.001, 1.1]},
            {"time_step_limit": [0.3, 100.0]},
            {"position_embedding_type": "rope"},
        ],
        rewinds=False,
    ),
    # The router is packed by 8 bits, the rest by 4.
    "granitemoehybrid-q4": dict(
        config=but(
            GRANITE,
            hidden_size=64,
            intermediate_size=64,
            shared_intermediate_size=64,
            num_hidden_layers=2,
            layer_types=["mamba", "attention"],
            mamba_n_heads=8,
            mamba_n_groups=2,
            num_local_experts=4,
            attention_multiplier=0.2,
            rope_parameters={"rope_theta": 50.0, "rope_type": "default"},
        ),
        quantize=dict(group_size=64, bits=4),
        contrasts=[{"rope_parameters": None}],
        rewinds=False,
    ),
    "granitemoehybrid-hf": dict(config=GRANITE_HF, layout="hf", rewinds=False),
    "granitemoehybrid-dense-hf": dict(
        config=but(GRANITE_HF, **DENSE, tie_word_embeddings=False), layout="hf", rewinds=False
    ),
}
