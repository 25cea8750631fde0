"""Writes what mlx_lm.convert makes of small checkpoints in Hugging Face's layout, for tests/converted.rs.

    python convert.py [--transformers PYTHON] [--out converted] [--against PENSIEVE] [name ...]

Each case becomes a folder: config.json and tensors.json as in the golden cases, and expected.json: for each
way of converting what the index says and the settings (all of them in the way `plain`, elsewhere the
quantization), and for each tensor, way by way, the beginning of a SHA-256 (see `digest`), or - where it is not
there. A new case needs a Python with transformers for the names and shapes of its tensors; later they are in
tensors.json. `--against` has a pensieve binary convert the same and says what is other.
"""

import argparse
import copy
import hashlib
import importlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import mlx.core as mx

mx.set_default_device(mx.cpu)

from mlx.utils import tree_unflatten
from mlx_lm import utils
from mlx_lm.models.mla import MultiLinear, QuantizedMultiLinear

import families
import portable
from families.common import but
from generate import hf_shapes, hf_tensors

# The package has a function of this name.
convert = importlib.import_module("mlx_lm.convert")
HERE = Path(__file__).parent
WIDE = dict(
    hidden_size=128,
    intermediate_size=192,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    num_hidden_layers=2,
    vocab_size=96,
)
EXPERTS = dict(WIDE, moe_intermediate_size=64)
LATENT = dict(
    hidden_size=128,
    intermediate_size=192,
    moe_intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    q_lora_rank=64,
    kv_lora_rank=64,
    qk_nope_head_dim=64,
    qk_rope_head_dim=8,
    v_head_dim=32,
    first_k_dense_replace=1,
)
# name: the golden case that it is made from, and what is other: settings, and those of `text_config`.
CASES = {
    # Enough layers for all that the mixed recipes tell apart.
    "llama": ("llama-hf", dict(WIDE, num_hidden_layers=9)),
    "qwen3": ("qwen3-hf", dict(WIDE, intermediate_size=200)),
    "qwen3_moe": ("qwen3-moe-hf", EXPERTS),
    "qwen2_moe": ("qwen2-moe-hf", dict(EXPERTS, shared_expert_intermediate_size=128)),
    "gemma3_text": ("gemma3_text-hf", WIDE),
    "gemma3": ("gemma3-hf", dict(vocab_size=64), but(WIDE, "vocab_size")),
    "deepseek_v3": ("deepseek_v3-hf", LATENT),
    "deepseek_v3-fp8": ("deepseek_v3-fp8", LATENT),
    "mamba2": ("mamba2-hf", dict(hidden_size=128, intermediate_size=256, num_heads=8, head_dim=32, expand=2)),
    "granitemoehybrid": ("granitemoehybrid-hf", dict(but(WIDE, "num_hidden_layers", "head_dim"), shared_intermediate_size=64, mamba_n_heads=8, mamba_d_head=32)),
    "granitemoehybrid-dense": ("granitemoehybrid-dense-hf", dict(but(WIDE, "num_hidden_layers", "head_dim"), shared_intermediate_size=192, mamba_n_heads=8, mamba_d_head=32)),
    "gpt_oss": ("gpt_oss-hf-mxfp4", dict(WIDE, intermediate_size=64)),
    "phi3": ("phi3-hf", but(WIDE, "head_dim")),
    "nemotron_h": ("nemotron_h-hf", dict(hidden_size=128, moe_intermediate_size=64, intermediate_size=192, num_attention_heads=4, num_key_value_heads=2, head_dim=32, mamba_num_heads=8, mamba_head_dim=32, n_groups=2)),
    "qwen3_next": ("qwen3_next-hf", dict(hidden_size=128, moe_intermediate_size=64, intermediate_size=192, shared_expert_intermediate_size=64)),
    "lfm2": ("lfm2-hf", dict(hidden_size=128, block_dim=128, intermediate_size=128)),
    "granite": ("granite-hf", but(WIDE, "head_dim")),
    "qwen3_vl": ("qwen3-vl-hf", {}, but(WIDE, "vocab_size")),
    "mixtral": ("mixtral-hf", but(WIDE, "head_dim")),
}
AFFINE = [(2, 32), (3, 64), (4, 64), (5, 64), (6, 32), (8, 64)]
PACKED = {f"affine-{bits}-g{size}": dict(q_bits=bits, q_group_size=size) for bits, size in AFFINE}
PACKED |= {mode: dict(q_mode=mode) for mode in ("mxfp4", "nvfp4", "mxfp8")}
MIXED = {recipe: dict(quant_predicate=recipe) for recipe in convert.QUANT_RECIPES}
WAYS = {"plain": {}, "float16": dict(dtype="float16")}
WAYS |= {name: dict(quantize=True, **way) for name, way in (PACKED | MIXED).items()}
# Of the result of another way.
WAYS |= {
    "again": dict(of="affine-4-g64"),
    "bfloat16-of-packed": dict(of="affine-4-g64", dtype="bfloat16"),
    "dequantize": dict(of="affine-4-g64", dequantize=True),
    "dequantize-mxfp4": dict(of="mxfp4", dequantize=True),
}


class NoTokenizer:
    def save_pretrained(self, directory):
        pass


def mlx_lm_convert(source, to, **way):
    """mlx-lm's own function, without the tokenizer, which these checkpoints lack."""

    def load(path, **_):
        model, config = utils.load_model(Path(path), lazy=True)
        return model, NoTokenizer(), config

    def dequantize(model):
        # mlx-lm leaves these packed and says in the config that they are not, so that it cannot load the result.
        for path, module in model.named_modules():
            if isinstance(module, QuantizedMultiLinear):
                rest = (module[key] for key in ("scales", "biases") if key in module)
                form = dict(group_size=module.group_size, bits=module.bits, mode=module.mode)
                plain = MultiLinear(1, 1, 1)
                plain.weight = mx.dequantize(module.weight, *rest, **form)
                model.update_modules(tree_unflatten([(path, plain)]))
        return utils.dequantize_model(model)

    convert.load, convert.dequantize_model = load, dequantize
    utils.create_model_card = lambda *_: None
    convert.convert(str(source), str(to), **way)


def arguments(way):
    """The same for pensieve's command line."""
    words = []
    for key, value in way.items():
        words.append("--" + key.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    return words


def digest(dtype, shape, content):
    """48 bits of the SHA-256 of, for example, `BF16 2,3 ` and the tensor's bytes."""
    start = f"{dtype} {','.join(map(str, shape))} ".encode()
    return hashlib.sha256(start + content).hexdigest()[:12]


def tensors(directory):
    """{name: digest} of the tensors in all shards."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__":
                begin, end = (start + at for at in entry["data_offsets"])
                found[name] = digest(entry["dtype"], entry["shape"], data[begin:end])
    return found


def result(directory):
    """What is compared of a converted checkpoint."""
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    config = json.loads((directory / "config.json").read_text())
    return {"config": config, "metadata": index["metadata"], "tensors": tensors(directory)}


def alike(config):
    """The settings with what reads the same written the same: no mode is affine, null is a default."""

    def of(value):
        if isinstance(value, dict) and "bits" in value and "group_size" in value:
            value = {**value, "mode": value.get("mode", "affine"), "group_size": value["group_size"] or 64}
        return {k: of(v) for k, v in value.items()} if isinstance(value, dict) else value

    return of(config)


def setup(name):
    base, outer, *inner = CASES[name]
    case = copy.deepcopy(families.load()[base])
    case["config"] = {**case["config"], **outer}
    if inner:
        case["config"]["text_config"] = {**case["config"]["text_config"], **inner[0]}
    return case


def recipe(name, before, transformers):
    case = setup(name)
    config = {**case["config"], "torch_dtype": case.get("dtype", "float32")}
    listed, _ = hf_tensors(case, config, hf_shapes(case, config, before, transformers))
    return config, {"seed": 1, "format": "pt", "shards": 2, "tensors": listed}


def differences(expected, found):
    """What is other, in words."""
    wrong = []
    for name in sorted(set(expected["tensors"]) | set(found["tensors"])):
        a, b = expected["tensors"].get(name), found["tensors"].get(name)
        if a != b:
            wrong.append(f"{name}: {a} is {b}")
    a, b = alike(expected["config"]), alike(found["config"])
    for key in sorted(set(a) | set(b)):
        if a.get(key) != b.get(key):
            wrong.append(f"config {key}: {a.get(key)} is {b.get(key)}")
    if expected["metadata"] != found["metadata"]:
        wrong.append(f"index {expected['metadata']} is {found['metadata']}")
    return wrong


def write_case(name, folder, transformers, against):
    config, made = recipe(name, folder / "tensors.json", transformers)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=1) + "\n")
    portable.write_recipe(made, folder / "tensors.json")
    expected, wrong = {}, []
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        (place / "source").mkdir()
        shutil.copy(folder / "config.json", place / "source")
        portable.write_weights(made, place / "source")
        for way, settings in WAYS.items():
            settings = dict(settings)
            source = place / settings.pop("of", "source")
            if not source.exists():
                continue
            try:
                mlx_lm_convert(source, place / way, **settings)
            except ValueError as e:
                print(f"{name} {way}: mlx-lm cannot: {e}")
                shutil.rmtree(place / way, ignore_errors=True)
                continue
            expected[way] = {"settings": WAYS[way], **result(place / way)}
            if against:
                out = place / f"{way}-pensieve"
                command = [against, "convert", "--device", "cpu", "--model", source, "--out", out, *arguments(settings)]
                done = subprocess.run(command, capture_output=True, text=True)
                faults = [done.stderr] if done.returncode else differences(expected[way], result(out))
                wrong += [f"{name} {way}: {fault}" for fault in faults]
    names = sorted({name for facts in expected.values() for name in facts["tensors"]})
    rows = {name: " ".join(facts["tensors"].get(name, "-") for facts in expected.values()) for name in names}
    for way, facts in expected.items():
        facts.pop("tensors")
        if way != "plain":
            facts["config"] = {k: v for k, v in facts["config"].items() if k.startswith("quantization")}

    def lines(items):
        return ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in items.items())

    text = f'{{"ways": {{\n{lines(expected)}\n}},\n"tensors": {{\n{lines(rows)}\n}}}}\n'
    (folder / "expected.json").write_text(text)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name:28} {len(expected):3} ways  {size / 1000:7.1f} kB  {len(wrong)} differences", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "converted")
    parser.add_argument("--transformers", metavar="PYTHON")
    parser.add_argument("--against", metavar="PENSIEVE")
    parser.add_argument("names", nargs="*", metavar="name", help="default: all")
    options = parser.parse_args()
    portable.check_known_answers()
    wrong = []
    for name in options.names or CASES:
        wrong += write_case(name, options.out / name, options.transformers, options.against)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
