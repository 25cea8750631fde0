"""A second opinion on the golden values: llama and qwen3 in plain NumPy float64, without MLX.

    python oracle.py [--cases cases] [--family F ...] [name ...]

Written from the model definitions (RMSNorm, rotary embedding and its scalings, grouped-query attention,
SwiGLU, the quantized formats). It makes each case's checkpoint, compares with the stored values over the
prompt and over each greedy step, and fails above compare.TOLERANCE or where a greedy token differs.
Families other than llama and qwen3 are passed over.
"""

import json
import math

import numpy as np

import compare

FAMILIES = ("llama", "qwen3")

STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U32": "<u4", "U8": "u1"}


def read_safetensors(file):
    """{name: array}; floats as float64, packed weights as uint32."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[start + begin : start + end], STORED[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        if not entry["dtype"].startswith("U"):
            flat = flat.astype(np.float64)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def small_floats(codes, exponent_bits, mantissa_bits):
    """The values of floats of a few bits, as OCP defines e2m1 and e4m3."""
    bias = 2 ** (exponent_bits - 1) - 1
    mantissa = codes & (2**mantissa_bits - 1)
    exponent = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    sign = 1 - 2.0 * (codes >> (mantissa_bits + exponent_bits))
    normal = (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)
    subnormal = mantissa / 2**mantissa_bits * 2.0 ** (1 - bias)
    return sign * np.where(exponent == 0, subnormal, normal)


def dequantize(packed, scales, biases, mode, bits, group_size):
    """Rows are one little-endian stream of `bits`-wide codes, of which each group shares a scale."""
    rows = packed.shape[0]
    stream = np.unpackbits(packed.view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    codes = stream.reshape(rows, -1, bits).astype(np.int64) @ (1 << np.arange(bits))
    groups = codes.reshape(rows, -1, group_size)
    if mode == "affine":
        return (groups * scales[..., None] + biases[..., None]).reshape(rows, -1)
    if mode == "nvfp4":
        scales = small_floats(scales.astype(np.int64), 4, 3)
    else:
        scales = 2.0 ** (scales.astype(np.int64) - 127)
    values = small_floats(groups, 4, 3) if mode == "mxfp8" else small_floats(groups, 2, 1)
    return (values * scales[..., None]).reshape(rows, -1)


class Checkpoint:
    def __init__(self, directory):
        self.config = json.loads((directory / "config.json").read_text())
        self.tensors = {}
        for file in sorted(directory.glob("model*.safetensors")):
            self.tensors.update(read_safetensors(file))

    def weight(self, path):
        """The dense [out, in] weight of a layer, quantized or not."""
        weight = self.tensors[f"{path}.weight"]
        if f"{path}.scales" not in self.tensors:
            return weight
        quantization = self.config["quantization"]
        params = quantization.get(path) or quantization
        return dequantize(
            weight,
            self.tensors[f"{path}.scales"],
            self.tensors.get(f"{path}.biases"),
            params.get("mode", "affine"),
            params["bits"],
            params["group_size"],
        )

    def linear(self, path, x):
        y = x @ self.weight(path).T
        bias = self.tensors.get(f"{path}.bias")
        return y if bias is None else y + bias

    def norm(self, path, x):
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.config["rms_norm_eps"]) * self.tensors[f"{path}.weight"]


def rope_settings(config):
    """(theta, scaling dict) from either spelling."""
    nested = config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or nested.get("rope_theta") or 10000.0
    return theta, config.get("rope_scaling") or nested


def rotary(config, head_dim):
    """(angular speed of each pair [head_dim / 2], factor on the rotated vectors)."""
    theta, scaling = rope_settings(config)
    speed = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    kind = scaling.get("type") or scaling.get("rope_type") or "default"
    if kind == "default":
        return speed, 1.0
    factor = scaling["factor"]
    if kind == "linear":
        return speed / factor, 1.0
    if kind == "llama3":
        context = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        # How many turns a pair makes over the original context decides how far it is slowed down.
        turns = context * speed / (2 * math.pi)
        keep = np.clip((turns - low) / (high - low), 0, 1)
        return speed * (keep + (1 - keep) / factor), 1.0
    if kind == "yarn":
        context = scaling["original_max_position_embeddings"]

        def pair_turning(times):
            return head_dim * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

        first = max(math.floor(pair_turning(scaling.get("beta_fast", 32))), 0)
        last = min(math.ceil(pair_turning(scaling.get("beta_slow", 1))), head_dim - 1)
        last = last + 0.001 if last == first else last
        slowed = np.clip((np.arange(head_dim // 2) - first) / (last - first), 0, 1)

        def temperature(scale):
            return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

        magnitude = temperature(scaling.get("mscale", 1)) / temperature(scaling.get("mscale_all_dim", 0))
        return speed * (1 - slowed) + speed / factor * slowed, magnitude
    raise SystemExit(f"no rope scaling {kind!r} here")


def rotate(x, speed, magnitude, interleaved):
    """x: [H, L, D], position i at row i."""
    angle = np.arange(x.shape[1])[:, None] * speed
    cos, sin = magnitude * np.cos(angle), magnitude * np.sin(angle)
    half = x.shape[-1] // 2
    first, second = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turned = first * cos - second * sin, first * sin + second * cos
    if interleaved:
        return np.stack(turned, axis=-1).reshape(x.shape)
    return np.concatenate(turned, axis=-1)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(ckpt, path, x, window):
    config = ckpt.config
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    length = x.shape[0]

    def split(name, count):
        return ckpt.linear(f"{path}.{name}", x).reshape(length, count, head_dim)

    q, k, v = split("q_proj", heads), split("k_proj", kv_heads), split("v_proj", kv_heads)
    if config["model_type"] == "qwen3":
        q, k = ckpt.norm(f"{path}.q_norm", q), ckpt.norm(f"{path}.k_norm", k)
    q, k, v = (t.transpose(1, 0, 2) for t in (q, k, v))  # [H, L, D]
    speed, magnitude = rotary(config, head_dim)
    interleaved = config.get("rope_traditional", False)
    q, k = rotate(q, speed, magnitude, interleaved), rotate(k, speed, magnitude, interleaved)
    k, v = (np.repeat(t, heads // kv_heads, axis=0) for t in (k, v))
    distance = np.arange(length)[:, None] - np.arange(length)
    visible = (distance >= 0) & (distance < (window or length))
    scores = np.where(visible, q @ k.transpose(0, 2, 1) / math.sqrt(head_dim), -np.inf)
    out = (softmax(scores) @ v).transpose(1, 0, 2).reshape(length, heads * head_dim)
    return ckpt.linear(f"{path}.o_proj", out)


def mlp(ckpt, path, x):
    gate = ckpt.linear(f"{path}.gate_proj", x)
    return ckpt.linear(f"{path}.down_proj", gate / (1 + np.exp(-gate)) * ckpt.linear(f"{path}.up_proj", x))


def log_probabilities(ckpt, ids):
    """[L, V]"""
    config = ckpt.config
    embedding = ckpt.weight("model.embed_tokens")
    h = embedding[ids]
    for i in range(config["num_hidden_layers"]):
        path = f"model.layers.{i}"
        sliding = config.get("layer_types", {}) and config["layer_types"][i] == "sliding_attention"
        window = config["sliding_window"] if sliding else None
        h = h + attention(ckpt, f"{path}.self_attn", ckpt.norm(f"{path}.input_layernorm", h), window)
        h = h + mlp(ckpt, f"{path}.mlp", ckpt.norm(f"{path}.post_attention_layernorm", h))
    h = ckpt.norm("model.norm", h)
    tied = config.get("tie_word_embeddings", True)
    logits = h @ (embedding if tied else ckpt.weight("lm_head")).T
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def checkpoint_log_probabilities(directory, ids):
    return log_probabilities(Checkpoint(directory), ids)


if __name__ == "__main__":
    compare.main(__doc__, "numpy", lambda facts: facts["family"] in FAMILIES, checkpoint_log_probabilities)
