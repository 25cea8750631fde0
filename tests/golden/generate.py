"""Writes the golden cases: small random checkpoints and what mlx-lm computes from them.

    python generate.py [--out cases] [name ...]

Each case becomes a directory: config.json and the weights exactly as mlx-lm saves them, expected.json
(prompt, greedy continuation) and expected.safetensors (log-probabilities). Everything runs on the CPU
in float32. Weights come from NumPy's seeded generator, so the same versions on the same machine write
the same bytes; the seed of a case is the first one whose values are worth testing (see `worthy`).
"""

import argparse
import contextlib
import json
import shutil
import zlib
from pathlib import Path

import mlx.core as mx

# Before mlx_lm, which binds its generation stream to the default device when imported.
mx.set_default_device(mx.cpu)

import mlx_lm
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import utils
from mlx_lm.generate import generate_step

from cases import CASES

PROMPT_TOKENS = 40
GREEDY_TOKENS = 32
# A greedy continuation is compared for equality, so no step may be close to a tie.
MIN_GREEDY_GAP = 0.02
MIN_DISTINCT_GREEDY = 8
# The median over positions of (largest - smallest) log-probability, in nats.
MIN_RANGE = 5.0
# How far a case's values must be from those with its feature switched off.
MIN_CONTRAST = 0.1


def random_weight(name, shape, rng, tied):
    """A random tensor scaled so that attention is sharp and the logits are far from uniform."""
    if name.endswith("norm.weight"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith(".bias"):
        return rng.normal(0.0, 0.3, shape)
    fan_in = shape[-1]
    if name == "lm_head.weight" or (tied and name == "model.embed_tokens.weight"):
        return rng.normal(0.0, 2.5 / fan_in**0.5, shape)
    if name == "model.embed_tokens.weight":
        return rng.normal(0.0, 0.5, shape)
    gain = 2.0 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.3
    return rng.normal(0.0, gain / fan_in**0.5, shape)


def build(case, seed):
    """The case's model with random weights of its dtype, before quantization."""
    config = {**case["config"], **case.get("reads_as", {})}
    model_class, args_class = utils._get_classes(config)
    args = args_class.from_dict(config)
    model = model_class(args)
    dtype = getattr(mx, case.get("dtype", "float32"))
    weights = []
    for name, value in tree_flatten(model.parameters()):
        # Seeded by name, so that one tensor does not depend on the order of the others.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        weight = random_weight(name, value.shape, rng, args.tie_word_embeddings)
        weights.append((name, mx.array(weight.astype(np.float32)).astype(dtype)))
    model.update(tree_unflatten(weights))
    return model


def quantize(model, config, group_size, bits, overrides={}, say_false=(), bare=False):
    """mlx-lm's quantization; returns the config that it asks to save."""

    def predicate(path, _module):
        # A copy, because the config keeps what the predicate returns.
        params = overrides.get(path, True)
        return dict(params) if isinstance(params, dict) else params

    _, config = utils.quantize_model(model, config, group_size, bits, quant_predicate=predicate)
    for path in say_false:
        config["quantization"][path] = False
    if bare:
        del config["quantization_config"], config["quantization"]["mode"]
    return config


@contextlib.contextmanager
def shards_of_equal_count(count):
    """Lets mlx-lm's save_model split tiny weights, whose own limit is in whole gigabytes."""

    def split(weights, *_):
        items = list(weights.items())
        return [dict(items[i * len(items) // count : (i + 1) * len(items) // count]) for i in range(count)]

    original, utils.make_shards = utils.make_shards, split
    try:
        yield
    finally:
        utils.make_shards = original


def save_config(config, path, bare):
    if not bare:
        utils.save_config(config, path)
        return
    # save_config would add quantization_config, which early conversions lack.
    path.write_text(json.dumps(dict(sorted(config.items())), indent=4))


def add_tensors(file, shapes, rng):
    """Adds tensors of large values, which spoil the result if they are used."""
    weights = mx.load(str(file))
    for name, shape in shapes.items():
        weights[name] = mx.array(rng.normal(0.0, 10.0, shape).astype(np.float32))
    mx.eval(weights)
    mx.save_safetensors(str(file), weights, metadata={"format": "mlx"})


def write_checkpoint(case, seed, directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    model = build(case, seed)
    config = {**case["config"], "torch_dtype": case.get("dtype", "float32")}
    quantization = case.get("quantize")
    if quantization:
        config = quantize(model, config, **quantization)
    with shards_of_equal_count(case.get("shards", 1)):
        utils.save_model(directory, model)
    bare = bool(quantization) and quantization.get("bare", False)
    save_config(config, directory / "config.json", bare)
    if "legacy" in case:
        add_tensors(directory / "model.safetensors", case["legacy"], np.random.default_rng([seed, 1]))


def load(case, directory, **changes):
    """The written checkpoint as mlx-lm loads it, with all floating tensors cast to float32."""
    model, _ = utils.load_model(directory, model_config={**case.get("reads_as", {}), **changes})
    model.set_dtype(mx.float32)
    return model


def log_probabilities(model, ids):
    """[L, V] from one pass without a cache."""
    logits = model(mx.array(ids)[None])[0]
    values = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    assert values.dtype == mx.float32
    return np.array(values)


def greedy(model, prompt):
    """Greedy ids and the [N, V] log-probabilities that each was drawn from."""
    steps = generate_step(
        mx.array(prompt),
        model,
        max_tokens=GREEDY_TOKENS,
        sampler=lambda logprobs: mx.argmax(logprobs, axis=-1),
    )
    ids, rows = zip(*[(int(token), np.array(row)) for token, row in steps])
    return list(ids), np.stack(rows)


def gaps(rows):
    top = np.sort(rows, axis=-1)
    return top[:, -1] - top[:, -2]


def worthy(case, directory, prompt, expected):
    """None, or why these values would make a weak test."""
    rows = expected["logprobs"]
    if np.median(rows.max(-1) - rows.min(-1)) < MIN_RANGE:
        return "log-probabilities are nearly uniform"
    if gaps(expected["greedy_logprobs"]).min() < MIN_GREEDY_GAP:
        return "a greedy step is nearly a tie"
    if len(set(expected["greedy"])) < MIN_DISTINCT_GREEDY:
        return "the greedy continuation repeats itself"
    for changes in case.get("contrasts", []):
        other = log_probabilities(load(case, directory, **changes), prompt)
        if np.abs(other - rows).max() < MIN_CONTRAST:
            return f"the values are hardly other with {changes}"
    return None


def write_case(name, case, directory):
    for seed in range(1, 1000):
        write_checkpoint(case, seed, directory)
        rng = np.random.default_rng([seed, 0])
        prompt = rng.integers(0, case["config"]["vocab_size"], PROMPT_TOKENS).tolist()
        model = load(case, directory)
        expected = {"logprobs": log_probabilities(model, prompt)}
        expected["greedy"], expected["greedy_logprobs"] = greedy(model, prompt)
        fault = worthy(case, directory, prompt, expected)
        if fault is None:
            break
    else:
        raise SystemExit(f"{name}: no seed below 1000 gives worthy values; the last one: {fault}")

    stored = set().union(*(mx.load(str(file)) for file in directory.glob("model*.safetensors")))
    for path in case.get("skips", []):
        assert f"{path}.weight" in stored and f"{path}.scales" not in stored, path

    arrays = {key: mx.array(expected[key]) for key in ("logprobs", "greedy_logprobs")}
    mx.save_safetensors(str(directory / "expected.safetensors"), arrays)
    rows = expected["logprobs"]
    facts = {
        "case": name,
        "generator": {"mlx": mx.__version__, "mlx_lm": mlx_lm.__version__},
        "seed": seed,
        "prompt": prompt,
        "greedy": expected["greedy"],
        "min_greedy_gap": round(float(gaps(expected["greedy_logprobs"]).min()), 4),
        "median_logprob_range": round(float(np.median(rows.max(-1) - rows.min(-1))), 2),
    }
    if "reads_as" in case:
        facts["reads_as"] = case["reads_as"]
    # One line a key keeps the id lists readable.
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
    (directory / "expected.json").write_text(f"{{\n{lines}\n}}\n")
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(f"{name:28} seed {seed:3}  gap {facts['min_greedy_gap']:.4f}  {size / 1000:7.1f} kB", flush=True)
    return size


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=here / "cases")
    parser.add_argument("names", nargs="*", metavar="name", help="default: all, in an emptied --out")
    options = parser.parse_args()
    unknown = set(options.names) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if not options.names:
        shutil.rmtree(options.out, ignore_errors=True)
    sizes = [write_case(name, CASES[name], options.out / name) for name in options.names or CASES]
    print(f"{len(sizes)} cases, {sum(sizes) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
