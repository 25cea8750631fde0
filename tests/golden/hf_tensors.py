"""Names and shapes of the tensors that transformers saves for a config.json, for cases with layout hf.

    python hf_tensors.py < config.json

The model is really made and saved, because transformers holds some tensors under other names and shapes
than those in files. Needs requirements-transformers.txt.
"""

import json
import sys
import tempfile
from pathlib import Path

from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText


def auto_class(config):
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def main():
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "config.json").write_text(sys.stdin.read())
        config = AutoConfig.from_pretrained(directory)
        model = auto_class(config).from_config(config)
        model.save_pretrained(directory)
        shapes = {}
        for file in sorted(directory.glob("*.safetensors")):
            with safe_open(file, "np") as tensors:
                shapes.update({name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()})
    # Layer 10 after layer 2, as people read them.
    order = sorted(shapes, key=lambda name: [int(part) if part.isdigit() else part for part in name.split(".")])
    print(json.dumps({name: shapes[name] for name in order}))


if __name__ == "__main__":
    main()
