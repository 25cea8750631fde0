"""Fine-tunes in mlx-lm's format over small models."""

from .common import but
from .glm4_moe import CASES as GLM4_MOE
from .llama import LLAMA, LLAMA_Q
from .phi3 import CASES as PHI3


def low_rank(kind, scale, keys=None, num_layers=-1, rank=4):
    parameters = {"rank": rank, "scale": scale, "dropout": 0.1}
    if keys is not None:
        parameters["keys"] = keys
    return {"fine_tune_type": kind, "num_layers": num_layers, "lora_parameters": parameters}


SOME = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "model.embed_tokens"]
EXPERTS = ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.down_proj", "self_attn.o_proj"]

CASES = {
    # The embedding is the output layer too. One of two layers is changed.
    "adapter-lora": dict(
        config=but(LLAMA, tie_word_embeddings=True), adapter=low_rank("lora", 2.5, SOME, num_layers=1)
    ),
    # Every linear layer, with biases.
    "adapter-lora-bias": dict(
        config=but(LLAMA, attention_bias=True, mlp_bias=True), adapter=low_rank("lora", 20.0, rank=2)
    ),
    "adapter-lora-q4": dict(
        config=LLAMA_Q,
        quantize=dict(group_size=64, bits=4),
        adapter=low_rank("lora", 10.0, [*SOME, "lm_head"]),
    ),
    "adapter-lora-moe": dict(
        **GLM4_MOE["glm4_moe-base"] | {"contrasts": [], "adapter": low_rank("lora", 2.5, EXPERTS)}
    ),
    "adapter-lora-moe-q4": dict(
        **GLM4_MOE["glm4_moe-q4"] | {"contrasts": [], "adapter": low_rank("lora", 2.5, EXPERTS)}
    ),
    # The experts are stored one by one.
    "adapter-lora-moe-hf": dict(
        **GLM4_MOE["glm4_moe-hf"] | {"contrasts": [], "adapter": low_rank("lora", 2.5, EXPERTS)}
    ),
    "adapter-dora": dict(
        config=but(LLAMA, tie_word_embeddings=True, attention_bias=True),
        adapter=low_rank("dora", 2.5, SOME, num_layers=1),
    ),
    "adapter-dora-q4": dict(
        config=LLAMA_Q,
        quantize=dict(group_size=64, bits=4),
        adapter=low_rank("dora", 10.0),
    ),
    # Queries, keys and values in one matrix, and gate and up too.
    "adapter-dora-fused": dict(
        **PHI3["phi3-base"]
        | {"contrasts": [], "adapter": low_rank("dora", 2.5, ["self_attn.qkv_proj", "mlp.gate_up_proj"])}
    ),
    "adapter-full": dict(
        config=LLAMA,
        adapter={"fine_tune_type": "full", "tensors": r"layers\.1\.(self_attn\.q_proj|.*norm)|model\.norm"},
    ),
}
