"""A second opinion on the golden values: transformers on the cases that have Hugging Face's names.

    python second_oracle.py [--cases cases] [--family F ...] [name ...]

Makes the checkpoint of each case with layout hf, runs it in PyTorch in float32 with eager attention over
the prompt and the greedy tokens in one pass, and fails above TOLERANCE or where a greedy token differs.
Needs requirements-transformers.txt.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig
from transformers.utils import logging

import portable
from hf_tensors import auto_class

TOLERANCE = 1e-3


def log_probabilities(directory, ids):
    """[L, V]"""
    model, faults = auto_class(AutoConfig.from_pretrained(directory)).from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    # What is missing would be random, and what is left over was not looked at.
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if faults.get(kind):
            raise SystemExit(f"{directory.name}: {kind}: {sorted(map(str, faults[kind]))}")
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def check(case):
    """(largest difference over the prompt, over the greedy steps, whether all greedy tokens agree)"""
    facts = json.loads((case / "expected.json").read_text())
    expected = load_file(case / "expected.safetensors")
    prompt, greedy = facts["prompt"], facts["greedy"]
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / case.name
        portable.write_checkpoint(case, directory)
        rows = log_probabilities(directory, prompt + greedy[:-1])
    drawn_from = rows[len(prompt) - 1 :]
    prefill = np.abs(rows[: len(prompt)] - expected["logprobs"]).max()
    decode = np.abs(drawn_from - expected["greedy_logprobs"]).max()
    return prefill, decode, drawn_from.argmax(axis=-1).tolist() == greedy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=Path(__file__).parent / "cases")
    parser.add_argument("--family", action="append", default=[])
    parser.add_argument("names", nargs="*", metavar="name", help="default: all with layout hf")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    fits = lambda facts: facts["layout"] == "hf" and not facts.get("alone")
    names = portable.choose(options.cases, options.names, options.family, fits)
    failed = []
    for name in names:
        prefill, decode, same = check(options.cases / name)
        # A NaN fails: it is not <= TOLERANCE.
        fine = prefill <= TOLERANCE and decode <= TOLERANCE and same
        print(f"{name:28} prefill {prefill:.1e}  greedy {decode:.1e}  {'ok' if fine else 'FAILED'}", flush=True)
        if not fine:
            failed.append(name)
    if failed:
        sys.exit(f"{len(failed)} of {len(names)} cases differ by more than {TOLERANCE}: {', '.join(failed)}")
    print(f"{len(names)} cases agree within {TOLERANCE}")


if __name__ == "__main__":
    main()
