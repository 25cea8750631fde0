"""Writes the golden cases: how to make small random checkpoints, and what mlx-lm computes from them.

    python generate.py [--out cases] [--family F ...] [name ...]

Each case becomes a directory: config.json, tensors.json (the weights' recipe, see portable.py),
expected.json (prompt, greedy continuation, what the case allows) and expected.safetensors
(log-probabilities). mlx-lm loads the checkpoint that the recipe makes and runs on the CPU in float32. The
seed of a case is the first one whose values are worth testing (see `worthy`).

A case in families/ has these fields, all optional but `config`:
  config         the config.json, but for what quantization adds
  dtype          the dtype of the stored floating tensors (expected values are always float32)
  fills          {regex: (center, spread)} for parameters whose values are no plain weights; see fills.py
  exact          {regex: [dtype, fill, ...]} for tensors that are not floating, or not of `dtype`
  quantize       group_size, bits, mode; `overrides` {path: params or False}; `say_false`: paths for which
                 the config says so; `bare`: the oldest config layout
  contrasts      sets of config values; under each, the same weights must give clearly other values, so
                 that a reader who ignores the key fails the case
  reads_as       config values handed to mlx-lm on top of config.json, where it does not read the file's
                 spelling
  shards         the number of weight files
  legacy         {tensor name: shape}: tensors that old checkpoints carry and a loader must leave out
  skips          paths that mlx-lm leaves dense because a row is no multiple of the group size
  layout         "hf": the tensors have the names and shapes of Hugging Face's checkpoints, which mlx-lm's
                 sanitize reads. They come from `hf`, a function config -> {name: shape, or a whole
                 [dtype, shape, fill, ...]}; else from transformers (--transformers PYTHON); else from the
                 tensors.json that is there
  alone          True where transformers cannot read a layout that mlx-lm reads, or rounds it otherwise
  prompt_tokens  the prompt's length, 40 if absent
  stored         whether computing with the weights as stored is float32 all through; by default, whether
                 no floating tensor is narrower
  rewinds        False where a cache cannot go back
  adapter        a fine-tune that mlx-lm's load_adapters puts over the model: `fine_tune_type`, `num_layers`,
                 `lora_parameters` of an adapter_config.json, or for a full one `tensors`, a regex of names
"""

import argparse
import copy
import json
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import mlx.core as mx

# Before mlx_lm, which binds its generation stream to the default device when imported.
mx.set_default_device(mx.cpu)

import mlx_lm
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import utils
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

import families
import portable
from fills import Fills, short

PROMPT_TOKENS = 40
GREEDY_TOKENS = 32
# A greedy continuation is compared for equality, so no step may be close to a tie.
MIN_GREEDY_GAP = 0.02
MIN_DISTINCT_GREEDY = 8
# The median over positions of (largest - smallest) log-probability, in nats.
MIN_RANGE = 5.0
# How far a case's values must be from those with its feature switched off.
MIN_CONTRAST = 0.1
# How far one pass may be from the decode steps, in nats.
MAX_DECODE_DIFFERENCE = 2e-4
SEEDS = 100
STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def without_global_scale(gather_qmm):
    """mlx-lm 0.32.2 passes gather_qmm an argument that MLX 0.32.2 lacks; None is as good as nothing."""

    def call(*arrays, global_scale=None, **options):
        if global_scale is not None:
            raise SystemExit("this MLX has no global_scale")
        return gather_qmm(*arrays, **options)

    return call


mx.gather_qmm = without_global_scale(mx.gather_qmm)


def build(config):
    model_class, args_class = utils._get_classes(config)
    # A copy, because some of mlx-lm's classes write their defaults into it.
    return model_class(args_class.from_dict(copy.deepcopy(config)))


def quantize(model, config, group_size=None, bits=None, mode="affine", overrides={}, say_false=(), bare=False):
    """mlx-lm's quantization of names and shapes; returns the config that it asks to save."""
    own = getattr(model, "quant_predicate", None)

    def predicate(path, module):
        default = own(path, module) if own else True
        # A copy, because the config keeps what the predicate returns.
        return copy.copy(overrides.get(path, default))

    _, config = utils.quantize_model(model, config, group_size, bits, mode, quant_predicate=predicate)
    for path in say_false:
        config["quantization"][path] = False
    if bare:
        del config["quantization_config"], config["quantization"]["mode"]
    return config


def mlx_tensors(case, model, fills):
    """The tensors of mlx-lm's model, quantized modules included."""
    dtype = STORED[case.get("dtype", "float32")]
    packed = {
        path: module
        for path, module in model.named_modules()
        if "scales" in module and module["weight"].dtype == mx.uint32
    }
    tensors = []
    for name, value in tree_flatten(model.parameters()):
        path, _, last = name.rpartition(".")
        if path in packed and last in ("weight", "scales", "biases"):
            if last == "weight":
                module = packed[path]
                shapes = module["weight"].shape, module["scales"].shape
                tensors += fills.packed(path, dtype, *shapes, module.bits, getattr(module, "mode", "affine"))
        elif (exact := exact_fill(case, name)) is not None:
            tensors.append([name, exact[0], list(value.shape), *exact[1:]])
        elif mx.issubdtype(value.dtype, mx.floating):
            tensors.append(fills.floating(name, dtype, value.shape))
        else:
            raise SystemExit(f"{name} is {value.dtype}: name it in the case's `exact`")
    return tensors


def exact_fill(case, name):
    found = [exact for pattern, exact in case.get("exact", {}).items() if re.search(pattern, name)]
    return found[0] if found else None


def hf_tensors(case, config, shapes):
    """The tensors of a checkpoint with Hugging Face's names. `shapes`: {name: shape or the whole tensor}."""
    fills = Fills(shapes, case.get("fills", {}))
    dtype = STORED[case.get("dtype", "float32")]
    tensors = []
    for name, shape in shapes.items():
        if isinstance(shape[0], str):
            tensors.append([name, *shape])
        elif (exact := exact_fill(case, name)) is not None:
            tensors.append([name, exact[0], list(shape), *exact[1:]])
        else:
            tensors.append(fills.floating(name, dtype, shape))
    return tensors, fills


def adapter_recipe(adapter, model, tensors):
    """The config and the tensors of a fine-tune of `model`, which gets the layers for it."""
    if adapter["fine_tune_type"] == "full":
        chosen = [tensor for tensor in tensors if re.search(adapter["tensors"], tensor[0])]
        return {"config": {"fine_tune_type": "full"}, "tensors": chosen}
    parameters = adapter["lora_parameters"]
    dora = adapter["fine_tune_type"] == "dora"
    linear_to_lora_layers(model, adapter["num_layers"], parameters, use_dora=dora)
    made = []
    for name, value in tree_flatten(model.parameters()):
        shape, last = list(value.shape), name.rpartition(".")[2]
        if last == "m":  # lengths of rows that have about these
            made.append([name, "F32", shape, "uniform", 1.6, 0.6])
        elif last in ("lora_a", "lora_b"):
            # Changes about half as large as what they change.
            rank = parameters["rank"]
            fan_in = 1 if "embed" in name else shape[-1] if len(shape) == 3 else shape[0]
            first, second = math.sqrt(3 / fan_in), math.sqrt(0.75 / rank) / parameters["scale"]
            made.append([name, "F32", shape, "uniform", 0.0, short(first if last == "lora_a" else second)])
    return {"config": adapter, "tensors": made}


def hf_shapes(case, config, before, transformers):
    if "hf" in case:
        return case["hf"](config)
    if transformers:
        script = Path(__file__).parent / "hf_tensors.py"
        done = subprocess.run(
            [transformers, script], input=json.dumps(config), capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{script}:\n{done.stderr}")
        return json.loads(done.stdout)
    if before.exists():
        tensors = json.loads(before.read_text())["tensors"]
        return {tensor[0]: tensor[2] for tensor in tensors}
    raise SystemExit("a new case with layout hf needs --transformers PYTHON, or `hf` in the case")


def recipe(case, before, transformers):
    """(config, tensors.json but for the seed)"""
    config = {**case["config"], "torch_dtype": case.get("dtype", "float32")}
    layout, made = case.get("layout", "mlx"), {}
    if layout == "hf":
        tensors, fills = hf_tensors(case, config, hf_shapes(case, config, before, transformers))
        if "adapter" in case:
            made["adapter"] = adapter_recipe(case["adapter"], build(case["config"]), tensors)
    else:
        model = build({**case["config"], **case.get("reads_as", {})})
        fills = Fills([name for name, _ in tree_flatten(model.parameters())], case.get("fills", {}))
        if "quantize" in case:
            config = quantize(model, config, **case["quantize"])
        tensors = mlx_tensors(case, model, fills)
        if "adapter" in case:
            made["adapter"] = adapter_recipe(case["adapter"], model, tensors)
    if fills.unused:
        raise SystemExit(f"no tensor matches the fills {sorted(fills.unused)}")
    # Of large values, which spoil the result if they are used.
    tensors += [[name, "F32", shape, "uniform", 0.0, 17.0] for name, shape in case.get("legacy", {}).items()]
    kind = {"mlx": "mlx", "hf": "pt"}[layout]
    return config, {"format": kind, "shards": case.get("shards", 1), **made, "tensors": tensors}


def load(case, directory, adapted=True, **changes):
    """The checkpoint as mlx-lm loads it, with all floating tensors cast to float32."""
    model, _ = utils.load_model(directory, model_config={**case.get("reads_as", {}), **changes})
    if adapted and "adapter" in case:
        load_adapters(model, str(directory / "adapter"))
        model.eval()
    model.set_dtype(mx.float32)
    return model


def log_probabilities(model, ids):
    """[L, V] from one pass with an empty cache."""
    logits = model(mx.array(ids)[None], cache=make_prompt_cache(model))[0].astype(mx.float32)
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


def greedy(model, prompt):
    """Greedy ids and the [N, V] log-probabilities that each was drawn from."""
    steps = generate_step(
        mx.array(prompt),
        model,
        max_tokens=GREEDY_TOKENS,
        sampler=lambda logprobs: mx.argmax(logprobs, axis=-1),
    )
    ids, rows = zip(*[(int(token), np.array(row.astype(mx.float32))) for token, row in steps])
    return list(ids), np.stack(rows)


def gaps(rows):
    top = np.sort(rows, axis=-1)
    return top[:, -1] - top[:, -2]


def worthy(case, directory, model, prompt, expected):
    """None, or why these values would make a weak test."""
    rows = expected["logprobs"]
    if not np.isfinite(rows).all():
        return "log-probabilities are not finite"
    if (spread := np.median(rows.max(-1) - rows.min(-1))) < MIN_RANGE:
        return f"log-probabilities are nearly uniform: {spread:.2f} from the smallest to the largest"
    if gaps(expected["greedy_logprobs"]).min() < MIN_GREEDY_GAP:
        return "a greedy step is nearly a tie"
    if len(set(expected["greedy"])) < MIN_DISTINCT_GREEDY:
        return "the greedy continuation repeats itself"
    whole = log_probabilities(model, prompt + expected["greedy"][:-1])[len(prompt) - 1 :]
    if (difference := np.abs(whole - expected["greedy_logprobs"]).max()) > MAX_DECODE_DIFFERENCE:
        return f"one pass and the decode steps differ by {difference:.1e}"
    contrasts = [{"adapted": False}] if "adapter" in case else []
    for changes in contrasts + case.get("contrasts", []):
        other = log_probabilities(load(case, directory, **changes), prompt)
        if np.abs(other - rows).max() < MIN_CONTRAST:
            return f"the values are hardly other with {changes}"
    return None


def tries(name, case, config, recipe, directory):
    """(seed, prompt, expected values) of the first worthy seed."""
    vocab = config.get("vocab_size") or config["text_config"]["vocab_size"]
    for seed in range(1, SEEDS + 1):
        portable.write_weights({**recipe, "seed": seed}, directory)
        portable.write_adapter({**recipe, "seed": seed}, directory)
        rng = np.random.default_rng([seed, 0])
        prompt = rng.integers(0, vocab, case.get("prompt_tokens", PROMPT_TOKENS)).tolist()
        model = load(case, directory)
        expected = {"logprobs": log_probabilities(model, prompt)}
        expected["greedy"], expected["greedy_logprobs"] = greedy(model, prompt)
        fault = worthy(case, directory, model, prompt, expected)
        if fault is None:
            return seed, prompt, expected
        if seed % 10 == 0:
            print(f"{name}: seed {seed}: {fault}", flush=True)
    raise SystemExit(f"{name}: no seed up to {SEEDS} gives worthy values ({fault}): give it other `fills`")


def write_case(name, case, directory, transformers):
    config, made = recipe(case, directory / "tensors.json", transformers)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=1) + "\n")
    with tempfile.TemporaryDirectory() as checkpoint:
        shutil.copy(directory / "config.json", checkpoint)
        seed, prompt, expected = tries(name, case, config, made, Path(checkpoint))
    portable.write_recipe({"seed": seed, **made}, directory / "tensors.json")

    stored = {tensor[0] for tensor in made["tensors"]}
    for path in case.get("skips", []):
        assert f"{path}.weight" in stored and f"{path}.scales" not in stored, path
    arrays = {key: mx.array(expected[key]) for key in ("logprobs", "greedy_logprobs")}
    mx.save_safetensors(str(directory / "expected.safetensors"), arrays)
    rows = expected["logprobs"]
    narrow = any(tensor[1] in ("F16", "BF16") for tensor in made["tensors"])
    facts = {
        "case": name,
        "family": case["family"],
        "generator": {"mlx": mx.__version__, "mlx_lm": mlx_lm.__version__},
        "layout": case.get("layout", "mlx"),
        **({"alone": True} if case.get("alone") else {}),
        "stored": case.get("stored", not narrow),
        "rewinds": case.get("rewinds", True),
        "prompt": prompt,
        "greedy": expected["greedy"],
        "min_greedy_gap": round(float(gaps(expected["greedy_logprobs"]).min()), 4),
        "median_logprob_range": round(float(np.median(rows.max(-1) - rows.min(-1))), 2),
    }
    if "adapter" in case:
        facts["adapter"] = case["adapter"]["fine_tune_type"]
    if "reads_as" in case:
        facts["reads_as"] = case["reads_as"]
    # One line a key keeps the id lists readable.
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items())
    (directory / "expected.json").write_text(f"{{\n{lines}\n}}\n")
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(f"{name:28} seed {seed:3}  gap {facts['min_greedy_gap']:.4f}  {size / 1000:7.1f} kB", flush=True)


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=here / "cases")
    parser.add_argument("--family", action="append", default=[], help="all cases of families/FAMILY.py")
    parser.add_argument("--transformers", metavar="PYTHON", help="a Python that has transformers and torch")
    parser.add_argument("names", nargs="*", metavar="name", help="default: all; then other folders in --out go")
    options = parser.parse_args()
    portable.check_known_answers()
    cases = families.load()
    known = {case["family"] for case in cases.values()}
    if wrong := (set(options.names) - set(cases)) | (set(options.family) - known):
        parser.error(f"no such case or family: {', '.join(sorted(wrong))}")
    chosen = [
        name
        for name, case in cases.items()
        if name in options.names or case["family"] in options.family or not (options.names or options.family)
    ]
    if len(chosen) == len(cases) and options.out.exists():
        for folder in options.out.iterdir():
            if folder.name not in cases:
                shutil.rmtree(folder)
    for name in chosen:
        write_case(name, cases[name], options.out / name, options.transformers)
    size = sum(file.stat().st_size for file in options.out.glob("*/*"))
    print(f"{len(chosen)} cases written; {options.out} has {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
