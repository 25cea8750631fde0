"""Measures llama.cpp on a GGUF file as `pensieve bench` measures Pensieve, by llama-cpp-python's low-level calls.

    python llama_cpp_bench.py --serve MODEL.gguf [--device cpu] [--threads 2]

It takes its work from `pensieve bench --against llama.cpp --gguf MODEL.gguf`, line by line as mlx_lm_bench.py
does. Several streams are sequences of one context and decode in one batch; tokens are the likeliest ones.
gguf_shape.py writes such a file of a model's shape with random weights.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import llama_cpp as llama
import numpy as np

BATCH = 2048  # tokens of prompts in one call; llama.cpp's default


@llama.llama_log_callback
def quiet(level, text, _):
    if level == 4:  # an error
        sys.stderr.write(text.decode(errors="replace"))


class Peer:
    """llama.cpp with one model."""

    def __init__(self, file, device, threads):
        llama.llama_log_set(quiet, None)
        llama.llama_backend_init()
        start = time.perf_counter()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0 if device == "cpu" else 999
        self.model = llama.llama_model_load_from_file(str(file).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {file}")
        self.load_seconds = time.perf_counter() - start
        self.threads = threads
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.context, self.room = None, (0, 0)

    def prepare(self, tokens, streams):
        """An empty context with room for these."""
        if tokens <= self.room[0] and streams <= self.room[1]:
            llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
            return
        if self.context:
            llama.llama_free(self.context)
        params = llama.llama_context_default_params()
        params.n_ctx = -(-tokens // 256) * 256
        params.n_batch = BATCH
        params.n_seq_max = streams
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = self.threads
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp has no room for {tokens} tokens")
        self.room = (tokens, streams)

    def decode(self, entries):
        """Runs (token, position, sequence, whether logits are wanted) in order, at most BATCH of them."""
        batch = llama.llama_batch_init(len(entries), 0, 1)
        try:
            batch.n_tokens = len(entries)
            for i, (token, position, sequence, wanted) in enumerate(entries):
                batch.token[i] = token
                batch.pos[i] = position
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = sequence
                batch.logits[i] = wanted
            code = llama.llama_decode(self.context, batch)
            if code != 0:
                raise RuntimeError(f"llama_decode gave {code}")
        finally:
            llama.llama_batch_free(batch)

    def drawn(self, place):
        """The likeliest token at this place of the last batch."""
        logits = llama.llama_get_logits_ith(self.context, place)
        return int(np.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax())

    def together(self, asks):
        """Runs these at once; their traces, in order."""
        self.prepare(sum(len(ask["prompt"]) + ask["tokens"] for ask in asks), len(asks))
        known = [
            (token, position, sequence, False)
            for sequence, ask in enumerate(asks)
            for position, token in enumerate(ask["prompt"][: ask["known"]])
        ]
        for start in range(0, len(known), BATCH):
            self.decode(known[start : start + BATCH])
        llama.llama_synchronize(self.context)
        stamps, pending = [[] for _ in asks], {}
        origin = time.perf_counter()
        entries = [
            (ask["prompt"][position], position, sequence, position + 1 == len(ask["prompt"]))
            for sequence, ask in enumerate(asks)
            for position in range(ask["known"], len(ask["prompt"]))
        ]
        for start in range(0, len(entries), BATCH):
            part = entries[start : start + BATCH]
            self.decode(part)
            for place, (_, _, sequence, wanted) in enumerate(part):
                if wanted:
                    pending[sequence] = self.drawn(place)
                    stamps[sequence].append(time.perf_counter() - origin)
        while True:
            going = [i for i in sorted(pending) if len(stamps[i]) < asks[i]["tokens"]]
            if not going:
                break
            positions = {i: len(asks[i]["prompt"]) + len(stamps[i]) - 1 for i in going}
            self.decode([(pending[i], positions[i], i, True) for i in going])
            for place, i in enumerate(going):
                pending[i] = self.drawn(place)
            now = time.perf_counter() - origin
            for i in going:
                stamps[i].append(now)
        return [
            {
                "sent": 0.0,
                "stamps": stamps[i],
                "prompt_tokens": len(ask["prompt"]),
                "cached_tokens": ask["known"],
                "tokens": len(stamps[i]),
            }
            for i, ask in enumerate(asks)
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--serve", action="store_true", required=True, help="take requests from standard input")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: a GPU if llama.cpp was built for one")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    peer = Peer(options.model, options.device, options.threads)
    print(json.dumps({"vocab_size": peer.vocab, "load_seconds": peer.load_seconds}), flush=True)
    for line in sys.stdin:
        try:
            answer = {"traces": peer.together(json.loads(line)["asks"])}
        except Exception as error:  # The other side reports it and ends.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
