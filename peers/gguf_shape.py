"""Writes a GGUF file of the shape that a model directory's config.json has, with random weights.

    python gguf_shape.py MODEL_DIR OUT.gguf [--type q4_0]

For llama.cpp and candle, which read no MLX checkpoints: the same shape, so that the same work is compared.
Llama, Mistral and Qwen3 (dense). A matrix of mean 0 and variance 1 / inputs; norms are 1. There is no
tokenizer in it, only its size.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np

TYPES = {
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "f16": gguf.GGMLQuantizationType.F16,
    "f32": gguf.GGMLQuantizationType.F32,
}
FILE_TYPES = {"q4_0": 2, "q8_0": 7, "f16": 1, "f32": 0}  # llama.cpp's enum llama_ftype
BLOCK = 32  # numbers that share a scale in Q4_0 and Q8_0


def packed(draw, rows, inputs, kind):
    """A matrix [rows, inputs] as the bytes that GGUF has, uint8 [rows, bytes]: random words with a scale each."""
    deviation = inputs**-0.5
    if kind in ("f16", "f32"):
        dtype = np.float16 if kind == "f16" else np.float32
        return (draw.standard_normal((rows, inputs), np.float32) * deviation).astype(dtype)
    # Uniform codes: of 16 values around 8, or of 255 around 0.
    spread = {"q4_0": (16**2 - 1) / 12, "q8_0": (255**2 - 1) / 12}[kind] ** 0.5
    blocks = rows * inputs // BLOCK
    scale = np.full((blocks, 1), deviation / spread, np.float16).view(np.uint8)
    if kind == "q4_0":
        codes = draw.integers(0, 256, (blocks, BLOCK // 2), np.uint8)
    else:
        codes = draw.integers(-127, 128, (blocks, BLOCK), np.int8).view(np.uint8)
    return np.concatenate([scale, codes], axis=1).reshape(rows, -1)


def write(config, out, kind, seed=0):
    architecture = {"llama": "llama", "mistral": "llama", "qwen3": "qwen3"}.get(config["model_type"])
    if architecture is None:
        raise SystemExit(f"{config['model_type']} is not among the shapes that can be written: llama, mistral, qwen3")
    d_model, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or d_model // heads
    d_ff, vocab = config["intermediate_size"], config["vocab_size"]
    if kind.startswith("q") and any(n % BLOCK for n in (d_model, d_ff, heads * head_dim)):
        raise SystemExit(f"{kind} needs widths that are multiples of {BLOCK}")
    writer = gguf.GGUFWriter(out, architecture, use_temp_file=True)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(d_model)
    writer.add_feed_forward_length(d_ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("no_vocab")

    draw = np.random.default_rng(seed)

    def matrix(name, rows, inputs):
        raw = None if kind in ("f16", "f32") else TYPES[kind]
        writer.add_tensor(f"{name}.weight", packed(draw, rows, inputs, kind), raw_dtype=raw)

    def norm(name, width):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

    matrix("token_embd", vocab, d_model)
    for layer in range(layers):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm", d_model)
        matrix(f"{block}.attn_q", heads * head_dim, d_model)
        matrix(f"{block}.attn_k", kv_heads * head_dim, d_model)
        matrix(f"{block}.attn_v", kv_heads * head_dim, d_model)
        matrix(f"{block}.attn_output", d_model, heads * head_dim)
        if architecture == "qwen3":
            norm(f"{block}.attn_q_norm", head_dim)
            norm(f"{block}.attn_k_norm", head_dim)
        norm(f"{block}.ffn_norm", d_model)
        matrix(f"{block}.ffn_gate", d_ff, d_model)
        matrix(f"{block}.ffn_up", d_ff, d_model)
        matrix(f"{block}.ffn_down", d_model, d_ff)
    norm("output_norm", d_model)
    # candle's loader takes the embedding where there is none, as llama.cpp's does.
    if not config.get("tie_word_embeddings", False):
        matrix("output", vocab, d_model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a directory with config.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=TYPES, default="q4_0")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = json.loads((options.model / "config.json").read_text())
    write(config, options.out, options.type, options.seed)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
