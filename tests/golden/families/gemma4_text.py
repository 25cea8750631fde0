from .common import but

TYPES = ["sliding_attention", "full_attention"]
ROPES = {
    "full_attention": {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.5,
        "factor": 2.0,
        "rope_theta": 500.0,
    },
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
# As E2B and E4B: inputs of each layer's own, and layers that read the keys of earlier ones.
GEMMA4_E = {
    "model_type": "gemma4_text",
    "architectures": ["Gemma4ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "global_head_dim": 12,
    "rms_norm_eps": 1e-6,
    "vocab_size": 64,
    "vocab_size_per_layer_input": 70,
    "hidden_size_per_layer_input": 6,
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "rope_parameters": ROPES,
    "sliding_window": 7,
    "sliding_window_pattern": 2,
    "max_position_embeddings": 256,
    "final_logit_softcapping": 12.0,
}
# As the 26B: keys that serve as values, and experts.
GEMMA4_MOE = {
    **but(GEMMA4_E, "vocab_size_per_layer_input", "sliding_window_pattern"),
    "hidden_size_per_layer_input": 0,
    "num_hidden_layers": 3,
    "num_kv_shared_layers": 0,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
    "enable_moe_block": True,
    "num_experts": 5,
    "top_k_experts": 2,
    "moe_intermediate_size": 20,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
}
SIZES_Q = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "head_dim": 16,
    "global_head_dim": 32,
}
FILLS = {r"post_\w+norm\w*\.weight$": (4.0, 2.0)}
FILLS_E = {**FILLS, r"embed_tokens_per_layer\.weight$": (0.0, 1.5)}
FILLS_MOE = {
    **FILLS,
    r"router\.scale$": (1.0, 0.5),
    r"router\.proj\.weight$": (0.0, 1.0),
    r"per_expert_scale$": (1.0, 0.5),
}
# Their names do not end in `weight` there.
FILLS_HF = {**FILLS_E, **FILLS_MOE, r"experts\.(gate_up|down)_proj$": (0.0, 0.5)}
PLAIN = {"rope_type": "default"}


def other_ropes(**changed):
    return {"rope_parameters": {**ROPES, **changed}}


CASES = {
    # Shared layers have keys of their own in old checkpoints, which are not used.
    "gemma4_text-shared": dict(
        config=but(GEMMA4_E, rms_norm_eps=1e-2),
        fills=FILLS_E,
        legacy={
            "model.layers.2.self_attn.k_proj.weight": [20, 24],
            "model.layers.2.self_attn.v_proj.weight": [20, 24],
            "model.layers.3.self_attn.k_norm.weight": [12],
            "model.layers.0.self_attn.q_proj.input_max": [1],
            "model.layers.0.self_attn.rotary_emb.inv_freq": [5],
        },
        contrasts=[
            {"rms_norm_eps": 1e-6},
            {"sliding_window": 8},
            {"final_logit_softcapping": 30.0},
            {"rope_traditional": True},
            {"rope_parameters": {}},
            other_ropes(sliding_attention={**PLAIN, "rope_theta": 10000.0}),
            other_ropes(full_attention={**ROPES["full_attention"], "rope_theta": 10000.0}),
            other_ropes(full_attention={**ROPES["full_attention"], "partial_rotary_factor": 1.0}),
            other_ropes(full_attention={**ROPES["full_attention"], "factor": 1.0}),
            other_ropes(full_attention={**PLAIN, "rope_theta": 500.0}),
        ],
    ),
    "gemma4_text-moe": dict(
        config=but(
            GEMMA4_MOE,
            tie_word_embeddings=False,
            rope_traditional=True,
            final_logit_softcapping=None,
        ),
        fills=FILLS_MOE,
        contrasts=[
            {"rope_traditional": False},
            {"final_logit_softcapping": 30.0},
            {"top_k_experts": 3},
            {"sliding_window": 8},
        ],
    ),
    # The keys that mlx-lm has defaults for are absent, but for most sizes.
    "gemma4_text-defaults": dict(
        config=but(
            GEMMA4_E,
            "num_attention_heads",
            "num_key_value_heads",
            "rms_norm_eps",
            "use_double_wide_mlp",
            "rope_parameters",
            "sliding_window",
            "sliding_window_pattern",
            "max_position_embeddings",
            "final_logit_softcapping",
            "global_head_dim",
            num_hidden_layers=6,
            num_kv_shared_layers=1,
            head_dim=8,
            hidden_size_per_layer_input=None,
        ),
        fills=FILLS,
        contrasts=[
            {"rms_norm_eps": 1e-1},
            {"sliding_window": 20},
            {"final_logit_softcapping": 15.0},
            {"rope_parameters": {}},
        ],
    ),
    # No size of the full layers' own.
    "gemma4_text-one-head-size": dict(
        config=but(
            GEMMA4_E,
            global_head_dim=None,
            use_double_wide_mlp=False,
            attention_k_eq_v=True,
            num_kv_shared_layers=1,
            num_hidden_layers=3,
        ),
        fills=FILLS_E,
    ),
    "gemma4_text-q4": dict(
        config=but(GEMMA4_E, **SIZES_Q, hidden_size_per_layer_input=32, num_hidden_layers=3, num_kv_shared_layers=1),
        fills={**FILLS_E, r"post_\w+norm\w*\.weight$": (8.0, 4.0)},
        dtype="bfloat16",
        quantize=dict(group_size=32, bits=4),
    ),
    "gemma4_text-moe-q4": dict(
        config=but(GEMMA4_MOE, **SIZES_Q, moe_intermediate_size=64, num_hidden_layers=2),
        fills={**FILLS_MOE, r"post_\w+norm\w*\.weight$": (8.0, 4.0)},
        quantize=dict(group_size=64, bits=4),
    ),
    "gemma4_text-hf": dict(
        config=but(
            GEMMA4_MOE,
            num_hidden_layers=4,
            num_kv_shared_layers=2,
            layer_types=TYPES * 2,
            hidden_size_per_layer_input=6,
            vocab_size_per_layer_input=64,
        ),
        fills=FILLS_HF,
        dtype="bfloat16",
        layout="hf",
    ),
}
