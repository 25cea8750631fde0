#!/usr/bin/env python3
"""Turns what train.py wrote into the folder that ships: MLX format, quantized.

    python3 export.py --from DIR [--to models/pensieve-tiny] [--bits 8]

Needs mlx-lm. With `--bits 0` the weights stay as trained, to compare with.
"""
import argparse
import json
import os
import shutil
import tempfile

import mlx.core as mx
from mlx_lm import convert

import chat

HERE = os.path.dirname(os.path.abspath(__file__))


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def tokenizer_config(tokenizer):
    added = {str(token["id"]): {key: token[key] for key in token if key != "id"}
             for token in tokenizer["added_tokens"]}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "added_tokens_decoder": added,
        "chat_template": chat.TEMPLATE,
    }


def describe(source, folder):
    """The text files of the model, which are the same for every quantization."""
    with open(os.path.join(source, "tokenizer.json"), encoding="utf-8") as file:
        tokenizer = json.load(file)
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    end, nothing = ids["<|im_end|>"], ids["<|endoftext|>"]
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config |= {"bos_token_id": None, "eos_token_id": end, "pad_token_id": nothing}
    write_json(folder, "config.json", config)
    write_json(folder, "tokenizer_config.json", tokenizer_config(tokenizer))
    write_json(folder, "generation_config.json",
               {"do_sample": False, "eos_token_id": [end, nothing], "pad_token_id": nothing})
    shutil.copyfile(os.path.join(source, "tokenizer.json"), os.path.join(folder, "tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--from", dest="source", required=True, help="the folder train.py wrote")
    parser.add_argument("--to", default=HERE)
    parser.add_argument("--bits", type=int, choices=(0, 4, 6, 8), default=8)
    parser.add_argument("--dtype", default="float32", help="of what is not quantized")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plain, converted = os.path.join(scratch, "plain"), os.path.join(scratch, "converted")
        os.mkdir(plain)
        describe(options.source, plain)
        weights = mx.load(os.path.join(options.source, "model.safetensors"))
        mx.save_safetensors(os.path.join(plain, "model.safetensors"), weights, {"format": "mlx"})
        convert(plain, converted, quantize=options.bits > 0, q_bits=options.bits or None,
                q_group_size=64, dtype=options.dtype)
        os.makedirs(options.to, exist_ok=True)
        # The converter rewrites the tokenizer's files; ours are the ones that were tested.
        describe(options.source, options.to)
        with open(os.path.join(converted, "config.json"), encoding="utf-8") as file:
            quantization = json.load(file).get("quantization")
        with open(os.path.join(options.to, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config["torch_dtype"] = options.dtype
        if quantization:
            config |= {"quantization": quantization, "quantization_config": quantization}
        write_json(options.to, "config.json", config)
        shutil.copyfile(os.path.join(converted, "model.safetensors"),
                        os.path.join(options.to, "model.safetensors"))


if __name__ == "__main__":
    main()
