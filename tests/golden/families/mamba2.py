from .common import but

MAMBA2 = {
    "model_type": "mamba2",
    "architectures": ["Mamba2ForCausalLM"],
    "hidden_size": 40,
    "expand": 2,
    "intermediate_size": 80,
    "num_heads": 16,
    "head_dim": 5,
    "n_groups": 4,
    "state_size": 12,
    "conv_kernel": 4,
    "num_hidden_layers": 3,
    "vocab_size": 96,
    "layer_norm_epsilon": 1e-5,
    "use_bias": False,
    "use_conv_bias": True,
    "tie_word_embeddings": False,
    "time_step_limit": [0.0, float("inf")],
    "time_step_rank": "auto",
    "hidden_act": "silu",
}
MAMBA2_Q = {
    **MAMBA2,
    "hidden_size": 128,
    "intermediate_size": 128,
    "expand": 1,
    "num_heads": 8,
    "head_dim": 16,
    "n_groups": 2,
    "num_hidden_layers": 2,
}

CASES = {
    "mamba2-base": dict(
        config=but(MAMBA2, layer_norm_epsilon=0.05), contrasts=[{"layer_norm_epsilon": 1e-5}], rewinds=False
    ),
    # Tied, biases the other way round, time steps that meet both limits; `ssm_state_size` decides.
    "mamba2-bias-limits": dict(
        config=but(
            MAMBA2,
            use_bias=True,
            use_conv_bias=False,
            tie_word_embeddings=True,
            time_step_limit=[0.3, 1.1],
            conv_kernel=3,
            n_groups=2,
            state_size=99,
            ssm_state_size=7,
            num_hidden_layers=2,
        ),
        contrasts=[{"time_step_limit": [0.0, 1.1]}, {"time_step_limit": [0.3, 100.0]}],
        rewinds=False,
    ),
    "mamba2-q4": dict(config=MAMBA2_Q, quantize=dict(group_size=64, bits=4), rewinds=False),
    # One group, because of several mlx-lm norms all at once and transformers each by itself.
    "mamba2-hf": dict(
        config=but(MAMBA2, num_heads=8, head_dim=10, n_groups=1), layout="hf", rewinds=False
    ),
}
