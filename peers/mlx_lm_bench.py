"""Measures mlx-lm on a model directory as `pensieve bench` measures Pensieve: same grid, same JSON rows.

    python mlx_lm_bench.py MODEL_DIR [--prompt 128,512] [--gen 64] [--depth 0] [--concurrency 1,8] [--reps 3]

One stream runs on generate_step, which stream_generate is a shell around; several run on BatchGenerator.
Prompts are random ids and nothing ends an answer early, so that no tokenizer is read. What lies before a
prompt (--depth) is computed before the clock starts.

With --serve it takes its work from `pensieve bench --against mlx-lm`: a line on standard input is
{"asks": [{"prompt": [ids], "tokens": n, "known": m}, ...]}, of which the first m ids of a prompt are computed
beforehand; the answer is a line {"traces": [{"sent": s, "stamps": [...], "prompt_tokens": n, ...}, ...]},
in seconds from one origin.
"""

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx


def lenient(setrlimit):
    """mlx-lm raises the limit of open files when it is imported, which valgrind does not allow."""

    def call(*limits):
        try:
            setrlimit(*limits)
        except ValueError:
            pass

    return call


resource.setrlimit = lenient(resource.setrlimit)


def without_global_scale(gather_qmm):
    """mlx-lm 0.32.2 passes gather_qmm an argument that MLX 0.32.2 lacks; None is as good as nothing."""

    def call(*arrays, global_scale=None, **options):
        if global_scale is not None:
            raise SystemExit("this MLX has no global_scale")
        return gather_qmm(*arrays, **options)

    return call


if "global_scale" not in (mx.gather_qmm.__doc__ or ""):
    mx.gather_qmm = without_global_scale(mx.gather_qmm)


class Peer:
    """mlx-lm with one model."""

    def __init__(self, directory, dtype, prefill_step_size):
        from mlx_lm import utils

        start = time.perf_counter()
        self.model, self.config = utils.load_model(directory)
        if dtype == "float32":
            # As Pensieve has them on a CPU: unpacked, and cast first so that nothing is rounded to the scales' type.
            self.model.set_dtype(mx.float32)
            self.model = utils.dequantize_model(self.model)
        elif dtype:
            self.model.set_dtype(getattr(mx, dtype))
        mx.eval(self.model.parameters())
        self.load_seconds = time.perf_counter() - start
        self.prefill_step_size = prefill_step_size

    def vocab_size(self):
        return self.config.get("vocab_size") or self.config["text_config"]["vocab_size"]

    def cache_of(self, ids):
        """A prompt cache in which these ids are."""
        from mlx_lm.models.cache import make_prompt_cache

        cache = make_prompt_cache(self.model)
        for start in range(0, len(ids), self.prefill_step_size):
            self.model(mx.array([ids[start : start + self.prefill_step_size]]), cache=cache)
            mx.eval([layer.state for layer in cache])
        return cache

    def together(self, asks):
        """Runs these at once; their traces, in order."""
        caches = [self.cache_of(ask["prompt"][: ask["known"]]) for ask in asks]
        mx.synchronize()
        return (self.alone if len(asks) == 1 else self.batch)(asks, caches)

    def alone(self, asks, caches):
        from mlx_lm.generate import generate_step, generation_stream, wired_limit

        (ask,), (cache,) = asks, caches
        prompt, stamps = mx.array(ask["prompt"][ask["known"] :]), []
        with wired_limit(self.model, [generation_stream]):
            origin = time.perf_counter()
            steps = generate_step(
                prompt,
                self.model,
                max_tokens=ask["tokens"],
                prompt_cache=cache,
                prefill_step_size=self.prefill_step_size,
            )
            for _ in steps:
                stamps.append(time.perf_counter() - origin)
        return [trace(ask, stamps)]

    def batch(self, asks, caches):
        from mlx_lm.generate import BatchGenerator

        generator = BatchGenerator(
            self.model,
            completion_batch_size=len(asks),
            prefill_step_size=self.prefill_step_size,
        )
        try:
            origin = time.perf_counter()
            ids = generator.insert(
                [ask["prompt"][ask["known"] :] for ask in asks],
                max_tokens=[ask["tokens"] for ask in asks],
                caches=caches,
                all_tokens=[ask["prompt"][: ask["known"]] for ask in asks],
            )
            stamps = {uid: [] for uid in ids}
            running = set(ids)
            while running:
                responses = generator.next_generated()
                now = time.perf_counter() - origin
                for response in responses:
                    stamps[response.uid].append(now)
                    if response.finish_reason is not None:
                        running.discard(response.uid)
        finally:
            generator.close()
        return [trace(ask, stamps[uid]) for ask, uid in zip(asks, ids)]


def trace(ask, stamps):
    return {
        "sent": 0.0,
        "stamps": stamps,
        "prompt_tokens": len(ask["prompt"]),
        "cached_tokens": ask["known"],
        "tokens": len(stamps),
        "peak_memory": mx.get_peak_memory(),
    }


def percentile(ordered, percent):
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values):
    if not values:
        return None
    ordered = sorted(values)
    named = {f"p{percent}": percentile(ordered, percent) for percent in (5, 50, 90, 99)}
    named |= {"mean": sum(ordered) / len(ordered), "min": ordered[0], "max": ordered[-1]}
    return {name: float(f"{value:.6g}") for name, value in named.items()} | {"n": len(ordered)}


def aggregate_rate(traces):
    """Tokens a second of all streams while each of them decodes; None if that is shorter than two tokens of each."""
    start = max(trace["stamps"][0] for trace in traces)
    end = min(trace["stamps"][-1] for trace in traces)
    counts = [sum(start < at <= end for at in trace["stamps"]) for trace in traces]
    return sum(counts) / (end - start) if min(counts) >= 2 else None


def row(options, point, runs, load_seconds):
    prompt, tokens, depth, concurrency = point
    every = [trace for run in runs for trace in run]
    aggregates = [aggregate_rate(run) for run in runs]
    last = [max(trace["stamps"][-1] for trace in run) for run in runs]
    first = [max(trace["stamps"][0] for trace in run) for run in runs]
    gaps = [1e3 * (b - a) for trace in every for a, b in zip(trace["stamps"], trace["stamps"][1:])]
    return {
        "target": "mlx-lm",
        "model": options.model.name,
        "prompt": prompt,
        "gen": tokens,
        "depth": depth,
        "concurrency": concurrency,
        "reps": len(runs),
        "ttft_ms": summary([1e3 * trace["stamps"][0] for trace in every]),
        "prefill_tps": summary([concurrency * prompt / seconds for seconds in first]),
        "decode_tps": summary([(tokens - 1) / (t["stamps"][-1] - t["stamps"][0]) for t in every]),
        "itl_ms": summary(gaps),
        "aggregate_tps": summary([rate for rate in aggregates if rate is not None]),
        "total_tps": summary([concurrency * tokens / seconds for seconds in last]),
        "tokens": sum(trace["tokens"] for trace in every) / len(every),
        "prompt_tokens": prompt + depth,
        "cached_tokens": depth,
        "peak_memory_bytes": mx.get_peak_memory(),
        "load_seconds": round(load_seconds, 3),
        "mlx": mx.__version__,
    }


def grid(peer, options):
    vocab = peer.vocab_size()
    for concurrency in options.concurrency:
        for depth in options.depth:
            for prompt in options.prompt:
                for tokens in options.gen:
                    point = (prompt, tokens, depth, concurrency)
                    draw = random.Random(f"{options.seed} {point}")

                    def ask():
                        ids = [draw.randrange(vocab) for _ in range(depth + prompt)]
                        return {"prompt": ids, "tokens": tokens, "known": depth}

                    asks = [[ask() for _ in range(concurrency)] for _ in range(options.warm_up + options.reps)]
                    runs = [peer.together(group) for group in asks][options.warm_up :]
                    print(json.dumps(row(options, point, runs, peer.load_seconds)), flush=True)


def count(peer, options):
    """Under callgrind: counts instructions of one answer of each length of --gen, each dumped on its own."""

    def control(*words):
        child = subprocess.Popen(["callgrind_control", *words, str(os.getpid())], stdout=sys.stderr)
        while child.poll() is None:
            time.sleep(0.05)  # callgrind looks for commands when this process runs.

    def run(tokens):
        prompts = [[7 * i + stream for i in range(options.prompt[0])] for stream in range(options.concurrency[0])]
        peer.together([{"prompt": prompt, "tokens": tokens, "known": 0} for prompt in prompts])

    run(2)
    control("--instr=on")
    for tokens in options.gen:
        run(tokens)
        control("--dump")


def serve(peer):
    facts = {"vocab_size": peer.vocab_size(), "load_seconds": peer.load_seconds, "mlx": mx.__version__}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        try:
            answer = {"traces": peer.together(json.loads(line)["asks"])}
        except Exception as error:  # The other side reports it and ends.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=numbers, default=[128], help="tokens of a prompt, comma-separated")
    parser.add_argument("--gen", type=numbers, default=[64], help="tokens of an answer, 2 or more")
    parser.add_argument("--depth", type=numbers, default=[0], help="tokens that lie before the prompt")
    parser.add_argument("--concurrency", type=numbers, default=[1], help="streams at a time")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prefill-step-size", type=int, default=2048, help="mlx-lm's default is 2048")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: as stored")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: the one that MLX picks")
    parser.add_argument("--serve", action="store_true", help="take requests from standard input")
    parser.add_argument("--callgrind", action="store_true", help="for benches/instructions.rs")
    options = parser.parse_args()
    if min(options.gen) < 2 or min(options.prompt + options.concurrency + [options.reps]) < 1:
        parser.error("--gen must be 2 or more; --prompt, --concurrency and --reps 1 or more")
    if options.device:
        # mlx_lm is imported after this, because it binds its stream to the default device.
        mx.set_default_device(getattr(mx, options.device))
    peer = Peer(options.model, options.dtype, options.prefill_step_size)
    if options.serve:
        serve(peer)
    elif options.callgrind:
        count(peer, options)
    else:
        grid(peer, options)


if __name__ == "__main__":
    main()
