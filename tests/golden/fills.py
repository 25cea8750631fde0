"""Which fill of portable.py each tensor gets: attention sharp, logits far from uniform, norms around 1."""

import math
import re

HEAD = re.compile(r"^(language_model\.|model\.|transformer\.|text_model\.)*(lm_head|output|embed_out)\.weight$")
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|embeddings?)\.weight$")
QUERY_OR_KEY = re.compile(r"[._](wq|wk|q|k|q_proj|k_proj|q_a_proj|q_b_proj|qkv_proj|query_key_value)\.weight$")
# What a case can override with `fills`: the parameters that are no plain weights, by their usual names.
SPECIAL = [
    (re.compile(pattern), fill)
    for pattern, fill in [
        (r"\.A_log$", (1.4, 1.3)),
        (r"\.dt_bias$", (0.0, 1.0)),
        (r"\.D$", (1.0, 0.5)),
        (r"\.sinks$", (0.0, 2.0)),
        (r"(e_score_correction_bias|expert_bias)$", (0.0, 0.3)),
        (r"\.(layer_scalar|global_scale)$", (1.0, 0.3)),
    ]
]
# e2m1 magnitudes, and e4m3 ones up to the largest code that is used (240).
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
MAX_FP8_CODE = 0x77
FP8 = [(m / 8 if e == 0 else 1 + m / 8) * 2.0 ** (max(e, 1) - 7) for e in range(15) for m in range(8)]


def rms(values):
    return math.sqrt(sum(v * v for v in values) / len(values))


def spread_of(deviation):
    """The half-width of a uniform distribution with this standard deviation."""
    return deviation * math.sqrt(3)


def short(x):
    """Four digits keep tensors.json small."""
    return float(f"{x:.4g}")


class Fills:
    """The fills of one checkpoint. `overrides`: {regex: (center, spread)}, searched in the names."""

    def __init__(self, names, overrides):
        self.tied = not any(HEAD.search(name) for name in names)
        self.overrides = [(re.compile(pattern), fill) for pattern, fill in overrides.items()]
        self.unused = set(overrides)

    def range(self, name, shape):
        """(center, spread) of a floating tensor."""
        for pattern, fill in self.overrides:
            if pattern.search(name):
                self.unused.discard(pattern.pattern)
                return fill
        for pattern, fill in SPECIAL:
            if pattern.search(name):
                return fill
        module = name.split(".")[-2] if "." in name else ""
        if name.endswith(".weight") and (len(shape) == 1 or "norm" in module):
            return (1.0, 0.5)
        if len(shape) < 2 or name.endswith("bias"):
            return (0.0, 0.5)
        # A convolution's rows are [taps, channels] or [channels, taps].
        fan_in = math.prod(shape[1:]) if "conv" in name else shape[-1]
        if HEAD.search(name) or (self.tied and EMBEDDING.search(name)):
            return (0.0, spread_of(2.5 / math.sqrt(fan_in)))
        if EMBEDDING.search(name):
            return (0.0, spread_of(0.5))
        gain = 2.0 if QUERY_OR_KEY.search(name) else 1.3
        return (0.0, spread_of(gain / math.sqrt(fan_in)))

    def floating(self, name, dtype, shape):
        center, spread = self.range(name, shape)
        return [name, dtype, list(shape), "uniform", short(center), short(spread)]

    def packed(self, path, dtype, weight_shape, scales_shape, bits, mode):
        """The tensors of a quantized module, whose dequantized values have the dense weight's spread."""
        dense = [*weight_shape[:-1], weight_shape[-1] * 32 // bits]
        _, spread = self.range(f"{path}.weight", dense)
        deviation = spread / math.sqrt(3)
        weight = [f"{path}.weight", "U32", list(weight_shape), "words"]
        if mode == "affine":
            levels = 2**bits
            # The standard deviation of a uniform code of so many levels.
            scale = deviation / math.sqrt((levels**2 - 1) / 12)
            bias = -scale * (levels - 1) / 2
            return [
                weight,
                [f"{path}.scales", dtype, list(scales_shape), "uniform", short(scale), short(scale / 10)],
                [f"{path}.biases", dtype, list(scales_shape), "uniform", short(bias), short(-bias / 10)],
            ]
        if mode == "nvfp4":  # an e4m3 scale
            scale = deviation / rms(FP4)
            exponent = max(math.floor(math.log2(scale)), -6)
            middle = max((exponent + 7) * 8 + int((scale / 2.0**exponent - 1) * 8), 12)
            low, high = middle - 3, middle + 3
        else:  # a power of two, biased by 127
            values = FP4 if mode == "mxfp4" else FP8
            low = 127 + math.floor(math.log2(deviation / rms(values)))
            high = low + 1
        if mode == "mxfp8":
            weight[3:] = ["codes", MAX_FP8_CODE]
        return [weight, [f"{path}.scales", "U8", list(scales_shape), "integers", low, high]]
