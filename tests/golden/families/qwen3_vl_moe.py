from .common import but
from .qwen3_moe import QWEN3_MOE, QWEN3_MOE_Q
from .qwen3_vl import MROPE, QWEN3_VL


def text(base, **changed):
    return but(
        base, "architectures", model_type="qwen3_vl_moe_text", rope_scaling=MROPE, **changed
    )


TEXT = text(QWEN3_MOE, num_hidden_layers=2, num_experts=4)
QWEN3_VL_MOE = but(
    QWEN3_VL,
    model_type="qwen3_vl_moe",
    architectures=["Qwen3VLMoeForConditionalGeneration"],
    text_config=TEXT,
)


def published(config):
    """The layout of the published checkpoints: fused experts, their input features before their output.

    transformers 5 reads it too, but saves them the other way round, which mlx-lm does not read.
    """
    text, vision = config["text_config"], config["vision_config"]
    d, ff, experts = (text[k] for k in ("hidden_size", "moe_intermediate_size", "num_experts"))
    queries, keys = (
        text[k] * text["head_dim"] for k in ("num_attention_heads", "num_key_value_heads")
    )
    model = {"embed_tokens.weight": [text["vocab_size"], d], "norm.weight": [d]}
    for i in range(text["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj": [queries, d],
            "self_attn.k_proj": [keys, d],
            "self_attn.v_proj": [keys, d],
            "self_attn.o_proj": [d, queries],
            "self_attn.q_norm": [text["head_dim"]],
            "self_attn.k_norm": [text["head_dim"]],
            "input_layernorm": [d],
            "post_attention_layernorm": [d],
            "mlp.gate": [experts, d],
        }
        model |= {f"layers.{i}.{name}.weight": shape for name, shape in layer.items()}
        model |= {
            f"layers.{i}.mlp.experts.gate_up_proj": [experts, d, 2 * ff],
            f"layers.{i}.mlp.experts.down_proj": [experts, ff, d],
        }
    tensors = {f"model.language_model.{name}": shape for name, shape in model.items()}
    tensors["lm_head.weight"] = [text["vocab_size"], d]

    v, v_ff, patch = (vision[k] for k in ("hidden_size", "intermediate_size", "patch_size"))
    merged = 4 * v
    visual = {"patch_embed.proj": [v, 3, 2, patch, patch]}
    for i in range(vision["depth"]):
        visual |= {
            f"blocks.{i}.attn.qkv": [3 * v, v],
            f"blocks.{i}.attn.proj": [v, v],
            f"blocks.{i}.mlp.linear_fc1": [v_ff, v],
            f"blocks.{i}.mlp.linear_fc2": [v, v_ff],
            f"blocks.{i}.norm1": [v],
            f"blocks.{i}.norm2": [v],
        }
    for merger, normed in [("merger", v), ("deepstack_merger_list.0", merged)]:
        visual |= {
            f"{merger}.norm": [normed],
            f"{merger}.linear_fc1": [merged, merged],
            f"{merger}.linear_fc2": [vision["out_hidden_size"], merged],
        }
    for name, shape in visual.items():
        tensors[f"model.visual.{name}.weight"] = shape
        tensors[f"model.visual.{name}.bias"] = shape[:1]
    tensors["model.visual.pos_embed.weight"] = [vision["num_position_embeddings"], v]
    return tensors


CASES = {
    "qwen3-vl-moe-base": dict(
        config=but(
            QWEN3_VL_MOE, text_config=text(TEXT, norm_topk_prob=False, mlp_only_layers=[1])
        ),
        legacy={"vision_tower.patch_embed.proj.weight": [8, 2, 2, 2, 3]},
        contrasts=[
            {"text_config": text(TEXT, mlp_only_layers=[1])},
            {
                "text_config": text(
                    TEXT, norm_topk_prob=False, mlp_only_layers=[1], rope_theta=500.0
                )
            },
        ],
    ),
    # The router in 8 bits, as mlx-lm's predicate says, under names that start at the whole model.
    "qwen3-vl-moe-q4": dict(
        config=but(QWEN3_VL_MOE, text_config=text(QWEN3_MOE_Q)),
        quantize=dict(group_size=64, bits=4),
    ),
    "qwen3-vl-moe-hf": dict(config=QWEN3_VL_MOE, layout="hf", hf=published),
}
