from .common import but

LFM2 = {
    "model_type": "lfm2",
    "architectures": ["Lfm2ForCausalLM"],
    "hidden_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 40,
    "block_ff_dim": 77,
    "block_multiple_of": 8,
    "block_ffn_dim_multiplier": 1.25,
    "block_auto_adjust_ff_dim": True,
    "rope_theta": 10000.0,
    "full_attn_idxs": [1, 3],
    "tie_word_embeddings": True,
}
# The names of newer configurations, and a feed-forward size taken as it is.
LFM2_TYPES = but(
    LFM2,
    "full_attn_idxs",
    "block_ff_dim",
    intermediate_size=72,
    block_auto_adjust_ff_dim=False,
    layer_types=["conv", "full_attention", "conv"],
    num_hidden_layers=3,
)

CASES = {
    "lfm2-base": dict(
        config=but(LFM2, norm_eps=0.05),
        contrasts=[{"norm_eps": 1e-5}, {"rope_theta": 1000000.0}],
        rewinds=False,
    ),
    # A multiplier whose product is whole in double precision alone: 1.3 * 50 = 65.
    "lfm2-bias-types": dict(
        config=but(
            LFM2_TYPES,
            conv_bias=True,
            conv_L_cache=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=75,
            block_auto_adjust_ff_dim=True,
            block_multiple_of=1,
            block_ffn_dim_multiplier=1.3,
            rope_theta=500.0,
            rope_parameters={"rope_theta": 20.0, "rope_type": "default"},
        ),
        contrasts=[{"rope_parameters": None}],
        rewinds=False,
    ),
    "lfm2-q4": dict(
        config=but(
            LFM2_TYPES,
            hidden_size=128, block_dim=128, intermediate_size=128
        ),
        quantize=dict(group_size=64, bits=4),
        rewinds=False,
    ),
    "lfm2-hf": dict(config=LFM2_TYPES, layout="hf", rewinds=False),
}
