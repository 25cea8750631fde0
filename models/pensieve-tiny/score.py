#!/usr/bin/env python3
"""Exact match per skill of a model folder, through mlx-lm and its chat template, greedily.

    python3 score.py [FOLDER] [--prompts heldout.jsonl] [--first N] [--float] [--wrong]

`--float` computes with dequantized weights, all in float32.
"""
import argparse
import collections
import json
import os
import time

import mlx.core as mx
from mlx_lm import load
from mlx_lm.generate import generate_step
from mlx_lm.utils import dequantize_model

import chat

HERE = os.path.dirname(os.path.abspath(__file__))


def answer(model, tokenizer, record, stops):
    prompt = tokenizer.apply_chat_template(
        record["messages"], tools=record.get("tools"), add_generation_prompt=True, tokenize=False)
    assert prompt == chat.render(record["messages"], record.get("tools"), True)
    ids = []
    tokens = mx.array(tokenizer.encode(prompt, add_special_tokens=False))
    for token, _ in generate_step(tokens, model, max_tokens=256):
        if token in stops:
            break
        ids.append(token)
    return tokenizer.decode(ids), len(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", default=HERE)
    parser.add_argument("--prompts", default=os.path.join(HERE, "heldout.jsonl"))
    parser.add_argument("--first", type=int)
    parser.add_argument("--float", action="store_true")
    parser.add_argument("--wrong", action="store_true", help="print the wrong answers")
    options = parser.parse_args()
    model, tokenizer = load(options.folder)
    if options.float:
        model = dequantize_model(model)
        model.set_dtype(mx.float32)
    with open(options.prompts, encoding="utf-8") as file:
        records = [json.loads(line) for line in file][:options.first]
    with open(os.path.join(options.folder, "generation_config.json"), encoding="utf-8") as file:
        stops = set(json.load(file)["eos_token_id"])
    right, total, tokens, began = collections.Counter(), collections.Counter(), 0, time.time()
    for record in records:
        said, length = answer(model, tokenizer, record, stops)
        tokens += length
        total[record["skill"]] += 1
        right[record["skill"]] += said == record["answer"]
        if options.wrong and said != record["answer"]:
            print(json.dumps({"asked": record["messages"][-1]["content"],
                              "wanted": record["answer"], "said": said}, ensure_ascii=False))
    for skill in total:
        print(f"{skill:12} {100 * right[skill] / total[skill]:6.1f}  of {total[skill]}")
    print(f"{'all':12} {100 * right.total() / total.total():6.2f}  of {total.total()}, "
          f"{tokens} tokens in {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
