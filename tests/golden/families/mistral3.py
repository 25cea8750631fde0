from .common import but
from .llama import LLAMA
from .ministral3 import MINISTRAL3

PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 4,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
}
MISTRAL = but(
    LLAMA,
    "architectures",
    "tie_word_embeddings",
    model_type="mistral",
    num_key_value_heads=2,
    head_dim=14,
    sliding_window=None,
    rope_theta=1000.0,
)


def with_vision(text):
    return {
        "model_type": "mistral3",
        "architectures": ["Mistral3ForConditionalGeneration"],
        "text_config": text,
        "vision_config": PIXTRAL,
        "image_token_index": 10,
        "spatial_merge_size": 2,
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
    }


VISION = {
    "vision_tower.patch_conv.weight": [8, 3, 4, 4],
    "multi_modal_projector.linear_1.weight": [40, 8],
}



def nested_names(config):
    """The names of the modules in transformers, which some checkpoints have: a decoder within the model."""
    text = config["text_config"]
    d, ff, head = text["hidden_size"], text["intermediate_size"], text["head_dim"]
    queries, keys = text["num_attention_heads"] * head, text["num_key_value_heads"] * head
    layer = {
        "input_layernorm": [d],
        "mlp.down_proj": [d, ff],
        "mlp.gate_proj": [ff, d],
        "mlp.up_proj": [ff, d],
        "post_attention_layernorm": [d],
        "self_attn.k_proj": [keys, d],
        "self_attn.o_proj": [d, queries],
        "self_attn.q_proj": [queries, d],
        "self_attn.v_proj": [keys, d],
    }
    seen = {
        "attention.k_proj": [8, 8],
        "attention.o_proj": [8, 8],
        "attention.q_proj": [8, 8],
        "attention.v_proj": [8, 8],
        "attention_norm": [8],
        "feed_forward.down_proj": [8, 8],
        "feed_forward.gate_proj": [8, 8],
        "feed_forward.up_proj": [8, 8],
        "ffn_norm": [8],
    }
    model = {
        "language_model.embed_tokens": [text["vocab_size"], d],
        "language_model.norm": [d],
        "multi_modal_projector.linear_1": [d, 8],
        "multi_modal_projector.linear_2": [d, d],
        "multi_modal_projector.norm": [8],
        "multi_modal_projector.patch_merger.merging_layer": [8, 32],
        "vision_tower.ln_pre": [8],
        "vision_tower.patch_conv": [8, 3, 4, 4],
    }
    model |= {f"vision_tower.transformer.layers.0.{name}": shape for name, shape in seen.items()}
    for i in range(text["num_hidden_layers"]):
        model |= {f"language_model.layers.{i}.{name}": shape for name, shape in layer.items()}
    head = {"lm_head.weight": [text["vocab_size"], d]}
    return head | {f"model.{name}.weight": shape for name, shape in sorted(model.items())}


UNTIED = {
    **with_vision(but(MISTRAL, tie_word_embeddings=False, num_key_value_heads=1)),
    "tie_word_embeddings": False,
}

CASES = {
    # Untied, because that is the default of the part that holds the text settings.
    "mistral3-base": dict(
        config=with_vision(MISTRAL),
        legacy=VISION,
        contrasts=[{"text_config": but(MISTRAL, rope_theta=10000.0)}],
    ),
    "mistral3-ministral3": dict(
        config=with_vision(
            but(
                MINISTRAL3,
                "architectures",
                tie_word_embeddings=True,
                num_hidden_layers=3,
                sliding_window=8,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            )
        ),
        contrasts=[{"text_config": {**MINISTRAL3, "tie_word_embeddings": True, "num_hidden_layers": 3}}],
    ),
    "mistral3-q4-g32": dict(
        config=with_vision(but(MISTRAL, hidden_size=64, head_dim=16)),
        quantize=dict(
            group_size=32,
            bits=4,
            overrides={"language_model.model.layers.0.mlp.down_proj": {"group_size": 64, "bits": 8}},
        ),
    ),
    # transformers takes tied embeddings for the default, so it is told twice.
    "mistral3-hf": dict(config=UNTIED, layout="hf"),
    "mistral3-hf-nested": dict(config=UNTIED, layout="hf", hf=nested_names),
}
