"""A second opinion on the golden values: transformers on the cases that have Hugging Face's names.

    python second_oracle.py [--cases cases] [--family F ...] [name ...]

Makes the checkpoint of each case with layout hf, runs it in PyTorch in float32 with eager attention over
the prompt and the greedy tokens in one pass, and fails above compare.TOLERANCE or where a greedy token differs.
Needs requirements-transformers.txt.
"""

import torch
from transformers import AutoConfig
from transformers.utils import logging

import compare
from hf_tensors import auto_class


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


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    compare.main(
        __doc__,
        "transformers",
        lambda facts: facts["layout"] == "hf" and not facts.get("alone") and "adapter" not in facts,
        log_probabilities,
    )
