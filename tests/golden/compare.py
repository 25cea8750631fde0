"""What the oracles share: running over cases, comparing with the golden values, keeping the figures.

`oracles.json` has, for each case, the oracles that agreed on it and their largest difference in nats;
docs/models.md is made from it.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import portable

TOLERANCE = 1e-3
HERE = Path(__file__).parent
FIGURES = HERE / "oracles.json"


def check(case, log_probabilities):
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


def keep(oracle, differences):
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name, difference in differences.items():
        figures.setdefault(name, {})[oracle] = float(f"{difference:.1e}")
    gone = [name for name in figures if not (HERE / "cases" / name).exists()]
    for name in gone:
        del figures[name]
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


def main(doc, oracle, fits, log_probabilities):
    """`log_probabilities(directory, ids)` gives [L, V] of a checkpoint; `fits(facts)` chooses cases."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=HERE / "cases")
    parser.add_argument("--family", action="append", default=[])
    parser.add_argument("names", nargs="*", metavar="name", help="default: all that the oracle knows")
    options = parser.parse_args()
    names = portable.choose(options.cases, options.names, options.family, fits)
    failed, agreed = [], {}
    for name in names:
        prefill, decode, same = check(options.cases / name, log_probabilities)
        # A NaN fails: it is not <= TOLERANCE.
        fine = prefill <= TOLERANCE and decode <= TOLERANCE and same
        print(f"{name:28} prefill {prefill:.1e}  greedy {decode:.1e}  {'ok' if fine else 'FAILED'}", flush=True)
        if fine:
            agreed[name] = max(prefill, decode)
        else:
            failed.append(name)
    if options.cases == HERE / "cases":
        keep(oracle, agreed)
    if failed:
        sys.exit(f"{len(failed)} of {len(names)} cases differ by more than {TOLERANCE}: {', '.join(failed)}")
    print(f"{len(names)} cases agree within {TOLERANCE}")
