"""What mlx-lm's own functions say of texts, for tests/perplexity.rs: writes perplexity.json.

    python perplexity.py [--model ../../models/pensieve-tiny]

perplexity.txt is tokenized whole; of perplexity.jsonl each text is as mlx-lm's TextDataset has it. Sequences
are cut from the start, in order, and given to mlx_lm.perplexity.eval_ppl on the CPU. Of answers.jsonl
the tokens are scored that ChatDataset and CompletionsDataset do not mask, up to the end-of-sequence token:
eval_ppl has nothing for those.
"""

import argparse
import json
import math
from pathlib import Path

import mlx.core as mx

# Before mlx_lm, which binds its generation stream to the default device when imported.
mx.set_default_device(mx.cpu)

import mlx.nn as nn
import mlx_lm
from mlx_lm.perplexity import eval_ppl
from mlx_lm.tuner.datasets import ChatDataset, CompletionsDataset, TextDataset
from mlx_lm.utils import load

# (file, sequence length, samples or None for all, batch size)
RUNS = [
    ("perplexity.txt", 64, None, 8),
    ("perplexity.txt", 100, 3, 2),
    ("perplexity.jsonl", 64, None, 8),
]


def tokens_of(file, tokenizer):
    if file.suffix == ".txt":
        return tokenizer.encode(file.read_text())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    dataset = TextDataset(lines, tokenizer)
    return [token for i in range(len(dataset)) for token in dataset.process(dataset[i])[0]]


def answers(model, tokenizer, file, samples):
    lines = [json.loads(line) for line in file.read_text().splitlines() if line][:samples]
    chats = ChatDataset(lines, tokenizer, mask_prompt=True)
    pairs = CompletionsDataset(lines, tokenizer, "prompt", "completion", mask_prompt=True)
    losses = []
    for line in lines:
        tokens, offset = (pairs if "prompt" in line else chats).process(line)
        end = offset + tokens[offset:].index(tokenizer.eos_token_id) + 1
        logits = model(mx.array([tokens[: end - 1]])).astype(mx.float32)
        targets = mx.array([tokens[1:end]])
        losses.append(nn.losses.cross_entropy(logits, targets)[0, offset - 1 :])
    losses = mx.concatenate(losses)
    perplexity = math.exp(losses.mean().item())
    error = mx.sqrt(mx.var(losses, ddof=1)).item() / math.sqrt(losses.size) * perplexity
    return {
        "file": file.name,
        "mask_prompt": True,
        "num_samples": samples,
        "samples": len(lines),
        "batch_size": 8 if samples is None else 2,
        "tokens": losses.size,
        "perplexity": perplexity,
        "standard_error": error,
        "mean_negative_log_likelihood": math.log(perplexity),
    }


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=here / "../../models/pensieve-tiny")
    options = parser.parse_args()
    model, tokenizer = load(str(options.model))
    model.set_dtype(mx.float32)
    runs = []
    for name, length, samples, batch_size in RUNS:
        tokens = tokens_of(here / name, tokenizer)
        data = mx.array(tokens[: len(tokens) // length * length]).reshape(-1, length)[:samples]
        perplexity, error = eval_ppl(model, data, batch_size=batch_size)
        runs.append(
            {
                "file": name,
                "sequence_length": length,
                "num_samples": samples,
                "batch_size": batch_size,
                "samples": data.shape[0],
                "tokens": data.shape[0] * (length - 1),
                "perplexity": perplexity,
                "standard_error": error,
                "mean_negative_log_likelihood": math.log(perplexity),
            }
        )
    runs.append(answers(model, tokenizer, here / "answers.jsonl", None))
    runs.append(answers(model, tokenizer, here / "answers.jsonl", 3))
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    versions = json.dumps({"mlx": mx.__version__, "mlx_lm": mlx_lm.__version__})
    (here / "perplexity.json").write_text(f'{{"generator": {versions},\n "runs": [\n{lines}\n]}}\n')
    print((here / "perplexity.json").read_text())


if __name__ == "__main__":
    main()
