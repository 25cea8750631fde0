"""Weights from a seed, the same bytes here and in tests/common/portable.rs.

    python portable.py [--out DIR] name ...     writes the checkpoints of golden cases

Element i of a tensor comes from output i of SplitMix64 (Steele, Lea and Flood 2014) whose state starts at
FNV-1a-64 of the tensor's name, xor seed * 0x9E3779B97F4A7C15. A tensor is [name, dtype, shape, fill, ...]:

  uniform center spread   center + spread * (2u - 1) in float64, u = the top 24 bits / 2^24; then rounded to
                          float32, and from there to the dtype
  words                   the top 32 bits, for packed weights
  integers low high       both ends included
  codes high              8-bit floats: a random sign and a magnitude of 0..=high; four in a U32

Needs NumPy alone. `portable.json` has known answers, which both sides check.
"""

import argparse
import json
from pathlib import Path

import numpy as np

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
INTEGERS = {"U8": np.uint8, "I32": np.int32, "U32": np.uint32, "I64": np.int64}


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def outputs(name, seed, count):
    """The first `count` outputs of the tensor's SplitMix64, uint64."""
    state = fnv1a(name.encode()) ^ (seed * GAMMA & MASK)
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(bits, dtype, center, spread):
    unit = (bits >> np.uint64(40)).astype(np.float64) * 2.0**-24
    values = (center + spread * (2 * unit - 1)).astype(np.float32)
    if dtype == "F32":
        return values.astype("<f4")
    if dtype == "F16":
        return values.astype("<f2")
    if dtype == "BF16":  # the upper half of a float32, ties to even
        word = values.view(np.uint32)
        return ((word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")
    raise ValueError(f"no uniform fill for {dtype}")


def words(bits, dtype):
    if dtype not in ("U32", "I32"):
        raise ValueError(f"no words fill for {dtype}")
    return (bits >> np.uint64(32)).astype("<u4")


def integers(bits, dtype, low, high):
    scaled = ((bits >> np.uint64(32)) * np.uint64(high - low + 1)) >> np.uint64(32)
    return (scaled.astype(np.int64) + low).astype(np.dtype(INTEGERS[dtype]).newbyteorder("<"))


def codes(bits, dtype, high):
    lanes = {"U32": 4, "U8": 1, "F8_E4M3": 1}[dtype]
    draws = (bits[:, None] >> (np.uint64(16) * np.arange(lanes, dtype=np.uint64))) & np.uint64(0xFFFF)
    magnitude = ((draws & np.uint64(0x7FFF)) * np.uint64(high + 1)) >> np.uint64(15)
    return ((draws >> np.uint64(8)) & np.uint64(0x80) | magnitude).astype(np.uint8)


FILLS = {"uniform": uniform, "words": words, "integers": integers, "codes": codes}


def content(tensor, seed):
    """The little-endian bytes of a tensor."""
    name, dtype, shape, fill, *parameters = tensor
    count = int(np.prod(shape, dtype=np.int64))
    return FILLS[fill](outputs(name, seed, count), dtype, *parameters).tobytes()


def write_shard(file, tensors, seed, kind):
    header, data = {"__metadata__": {"format": kind}}, b""
    for tensor in tensors:
        name, dtype, shape, *_ = tensor
        added = content(tensor, seed)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(added)]}
        data += added
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return len(data)


def write_weights(recipe, directory):
    """Writes the weights of a tensors.json: `shards` files of as many tensors each.

    With mlx-lm's names (`format` mlx) there is always an index, as mlx-lm writes one; with Hugging Face's
    (`pt`) only beside several files.
    """
    tensors, shards, kind = recipe["tensors"], recipe["shards"], recipe["format"]
    total, places = 0, {}
    for i in range(shards):
        part = tensors[i * len(tensors) // shards : (i + 1) * len(tensors) // shards]
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        total += write_shard(directory / name, part, recipe["seed"], kind)
        places.update((tensor[0], name) for tensor in part)
    if shards > 1 or kind == "mlx":
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_adapter(recipe, directory):
    """Makes the fine-tune of a tensors.json, if it has one, in the folder `adapter`: True, else False.

    Its tensors come from another seed, so that a whole one differs from the model's of the same name.
    """
    adapter = recipe.get("adapter")
    if adapter is None:
        return False
    folder = directory / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(adapter["config"], indent=4))
    write_shard(folder / "adapters.safetensors", adapter["tensors"], recipe["seed"] + 1000, "mlx")
    return True


def write_recipe(recipe, file):
    """tensors.json, one tensor a line."""

    def lines(tensors):
        return ",\n".join(json.dumps(tensor, separators=(",", ":")) for tensor in tensors)

    head = "".join(
        f'"{key}": {json.dumps(value)},\n' for key, value in recipe.items() if key not in ("tensors", "adapter")
    )
    if adapter := recipe.get("adapter"):
        head += f'"adapter": {{"config": {json.dumps(adapter["config"])}, "tensors": [\n{lines(adapter["tensors"])}\n]}},\n'
    file.write_text(f'{{\n{head}"tensors": [\n{lines(recipe["tensors"])}\n]\n}}\n')


def write_checkpoint(case, directory):
    """Makes the checkpoint of the case in folder `case`: config.json and the weights."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_bytes((case / "config.json").read_bytes())
    recipe = json.loads((case / "tensors.json").read_text())
    write_weights(recipe, directory)
    write_adapter(recipe, directory)


def choose(cases, names, families, fits):
    """The cases in folder `cases` that are named, or of these families, or all; those that fit."""
    found = {file.parent.name: json.loads(file.read_text()) for file in sorted(cases.glob("*/expected.json"))}
    if missing := set(names) - set(found):
        raise SystemExit(f"no such case in {cases}: {', '.join(sorted(missing))}")
    wanted = [n for n, f in found.items() if n in names or f["family"] in families or not (names or families)]
    if unfit := [name for name in wanted if not fits(found[name])]:
        print(f"passed over: {', '.join(unfit)}")
    return [name for name in wanted if fits(found[name])]


def check_known_answers():
    for known in json.loads((Path(__file__).parent / "portable.json").read_text()):
        data = content(known["tensor"], known["seed"])
        found = data[:16].hex(), f"{fnv1a(data):016x}"
        if found != (known["starts"], known["fnv1a"]):
            raise SystemExit(f"{known['tensor']}: {found}, expected {known['starts']}, {known['fnv1a']}")


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=here / "cases")
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("names", nargs="+", metavar="name")
    options = parser.parse_args()
    check_known_answers()
    for name in options.names:
        write_checkpoint(options.cases / name, options.out / name)
        print(options.out / name)


if __name__ == "__main__":
    main()
