"""Times mlx-lm on a model directory, to compare Pensieve with.

    python speed.py MODEL_DIR [--prompt 128,512] [--tokens 64] [--reps 3] [--dtype float32] [--device cpu|gpu]

Prints one JSON line a prompt length, with medians over the repetitions after one warm-up:
ttft_ms is the time from the call to the first token, decode_tps the tokens a second after that token.
The prompt is random ids and nothing stops generation, so no tokenizer is read.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import mlx.core as mx
import numpy as np


def load(directory, dtype):
    """The model, and its config.

    With float32, quantized layers become dense float32 weights before anything runs, as Pensieve has
    them on the CPU; the casts come first so that no weight is rounded to the scales' own type.
    """
    from mlx_lm import utils

    model, config = utils.load_model(directory)
    if dtype == "float32":
        model.set_dtype(mx.float32)
        model = utils.dequantize_model(model)
    elif dtype is not None:
        model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return model, config


def measure(model, prompt, tokens):
    """(seconds to the first token, tokens a second after it)"""
    from mlx_lm.generate import generate_step

    stamps = []
    start = time.perf_counter()
    for _ in generate_step(mx.array(prompt), model, max_tokens=tokens):
        stamps.append(time.perf_counter())
    return stamps[0] - start, (tokens - 1) / (stamps[-1] - stamps[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", default="128", help="prompt lengths in tokens, comma-separated")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate, 2 or more")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: as stored")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: the one that MLX picks")
    options = parser.parse_args()
    if options.tokens < 2 or options.reps < 1:
        parser.error("--tokens must be 2 or more, --reps 1 or more")
    if options.device:
        # mlx_lm is imported after this, because it binds its stream to the default device.
        mx.set_default_device(getattr(mx, options.device))
    model, config = load(options.model, options.dtype)

    for length in map(int, options.prompt.split(",")):
        prompt = np.random.default_rng(length).integers(0, config["vocab_size"], length).tolist()
        runs = [measure(model, prompt, options.tokens) for _ in range(1 + options.reps)][1:]
        report = {
            "ttft_ms": round(1000 * statistics.median(first for first, _ in runs), 2),
            "decode_tps": round(statistics.median(rate for _, rate in runs), 2),
            "prompt": length,
            "tokens": options.tokens,
            "reps": options.reps,
            "dtype": options.dtype or "stored",
            "device": mx.default_device().type.name,
            "model": options.model.name,
            "mlx": mx.__version__,
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
