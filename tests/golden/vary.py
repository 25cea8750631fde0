"""Writes random variations of the golden cases, to compare on what nobody thought of.

    python vary.py --out DIR [--family F ...] [--each 5] [--seed 0]
    PENSIEVE_GOLDEN_CASES=DIR cargo test --test golden log_probabilities

A variation changes one to three settings of a case: a key goes, a switch flips, a size or factor changes.
What mlx-lm itself cannot load or compute is passed over. A case that the test then refuses is either a
setting to support or one to refuse on purpose.
"""

import argparse
import contextlib
import copy
import io
import random
import shutil
from pathlib import Path

from mlx.utils import tree_flatten

import families
import generate

generate.MIN_GREEDY_GAP = 0.004
generate.MIN_DISTINCT_GREEDY = 2
generate.MIN_RANGE = 1.0
generate.SEEDS = 3
MOST_WEIGHTS = 3_000_000
KEEP = {"model_type", "vocab_size", "architectures", "quantization", "quantization_config"}


def vary_value(value, rng):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return max(1, rng.choice([value - 1, value + 1, value * 2, value // 2, value + 8]))
    if isinstance(value, float):
        return value * rng.choice([0.25, 0.5, 1.5, 2.0])
    if isinstance(value, list) and value:
        changed = copy.copy(value)
        rng.shuffle(changed)
        return changed
    if isinstance(value, dict) and value:
        changed = dict(value)
        key = rng.choice(sorted(changed))
        changed[key] = vary_value(changed[key], rng)
        return changed
    return value


def vary(config, rng):
    """(config, what changed)"""
    config, said = copy.deepcopy(config), []
    place = config.get("text_config", config) if rng.random() < 0.9 else config
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(sorted(set(place) - KEEP - {"text_config"}))
        if rng.random() < 0.3:
            said.append(f"-{key}")
            del place[key]
        else:
            place[key] = vary_value(place[key], rng)
            said.append(f"{key}={place[key]}")
        if not set(place) - KEEP - {"text_config"}:
            break
    return config, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", action="append", default=[])
    parser.add_argument("--each", type=int, default=5, help="variations of each case")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    written = passed_over = 0
    for name, case in families.load().items():
        if options.family and case["family"] not in options.family or case.get("layout") == "hf" or "reads_as" in case:
            continue
        for number in range(options.each):
            rng = random.Random(f"{options.seed} {name} {number}")
            config, said = vary(case["config"], rng)
            varied = {k: v for k, v in case.items() if k not in ("contrasts", "skips", "legacy")}
            varied["config"] = config
            folder = options.out / f"{name}~{number}"
            try:
                # A default can be the size of the real model.
                size = sum(value.size for _, value in tree_flatten(generate.build(config).parameters()))
                if size > MOST_WEIGHTS:
                    raise SystemExit(f"{size} weights")
                with contextlib.redirect_stdout(io.StringIO()):
                    generate.write_case(folder.name, varied, folder, None)
            except (Exception, SystemExit) as reason:
                shutil.rmtree(folder, ignore_errors=True)
                passed_over += 1
                print(f"  passed over {folder.name} ({', '.join(said)}): {str(reason)[:120]}")
                continue
            written += 1
            print(f"{folder.name}: {', '.join(said)}", flush=True)
    print(f"{written} variations written, {passed_over} passed over")


if __name__ == "__main__":
    main()
