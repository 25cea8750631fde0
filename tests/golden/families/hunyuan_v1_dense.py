from .common import NO_SCALING, but
from .llama import LLAMA, LLAMA_Q

ALPHA = {
    "alpha": 50.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "type": "dynamic",
}
HUNYUAN = {
    **but(LLAMA, "tie_word_embeddings"),
    "model_type": "hunyuan_v1_dense",
    "architectures": ["HunYuanDenseV1ForCausalLM"],
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 18,
    "rope_theta": 500.0,
    "rope_scaling": ALPHA,
    "use_qk_norm": True,
}

CASES = {
    # Untied by default.
    "hunyuan_v1_dense-base": dict(
        config=but(HUNYUAN, rms_norm_eps=1e-2),
        contrasts=[
            NO_SCALING,
            {"rope_scaling": {**ALPHA, "alpha": 10.0}},
            {"rope_theta": 10000.0},
            {"rms_norm_eps": 1e-5},
        ],
    ),
    # The base is the default, 10000.
    "hunyuan_v1_dense-bias": dict(
        config=but(
            HUNYUAN,
            "rope_theta",
            "rope_scaling",
            "head_dim",
            "use_qk_norm",
            attention_bias=True,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        legacy={"lm_head.weight": [96, 40]},
        contrasts=[{"rope_theta": 500.0}],
    ),
    "hunyuan_v1_dense-no-norm": dict(config=but(HUNYUAN, use_qk_norm=False)),
    # The newer spelling, which mlx-lm's hunyuan_v1_dense does not read.
    "hunyuan_v1_dense-rope-parameters": dict(
        config=but(
            HUNYUAN,
            "rope_theta",
            "rope_scaling",
            rope_parameters={**but(ALPHA, "type"), "rope_type": "dynamic", "rope_theta": 500.0},
        ),
        reads_as={"rope_theta": 500.0, "rope_scaling": ALPHA},
        contrasts=[{"rope_theta": 10000.0}, NO_SCALING],
    ),
    "hunyuan_v1_dense-q4-tied": dict(
        config=but(
            LLAMA_Q,
            model_type="hunyuan_v1_dense",
            head_dim=32,
            rope_scaling=ALPHA,
            tie_word_embeddings=True,
        ),
        quantize=dict(group_size=64, bits=4),
    ),
    "hunyuan_v1_dense-hf": dict(
        config=but(HUNYUAN, tie_word_embeddings=True), layout="hf"
    ),
}
