#!/usr/bin/env python3
"""Trains the tokenizer and the model from generated text.

    python3 train.py --out DIR [--seconds 520]

Writes tokenizer.json, config.json and model.safetensors (float16) to DIR, and scores.json with the
exact match per skill on held-out prompts. Training stops by the clock, and the learning rate falls
to zero by then. One large GPU and a dozen CPU cores that write dialogues make good company.
"""
import argparse
import collections
import json
import multiprocessing
import os
import random
import threading
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every worker is a process of its own
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import chat
import generate
from model import CONFIG, Qwen3
from prompts import Split

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKUP = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
# Qwen2's pattern: digits stand alone, which is what makes column arithmetic learnable.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Dialogues are packed into rows of these lengths; most fit the short one.
SHORT, LONG = 256, 1024
CHUNK = 1000


# --- tokenizer --------------------------------------------------------------------------------

def chunk_text(seed):
    rng, split = random.Random(f"tokenizer:{seed}"), Split("train")
    texts = []
    for _ in range(CHUNK):
        record = generate.training_dialogue(rng, split)
        texts += [message["content"] for message in record.messages]
        texts += [chat.dump(tool) for tool in record.tools] + [record.system]
    return texts


def train_tokenizer(workers, chunks, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # All 256 bytes are tokens, so any text survives the round trip.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKUP), special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    with multiprocessing.Pool(workers) as pool:
        texts = [text for chunk in pool.imap(chunk_text, range(chunks)) for text in chunk]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    return tokenizer


# --- data -------------------------------------------------------------------------------------

def encode(tokenizer, record):
    """Token ids of a dialogue, and for each whether it is the assistant's to say."""
    messages = ([{"role": "system", "content": record.system}] if record.system else [])
    parts = chat.segments(messages + record.messages, record.tools, record.compact)
    while not parts[-1][1] and len(parts) > 1:
        parts.pop()  # nothing to learn after the last answer
    ids, learn = [], []
    encoded = tokenizer.encode_batch([text for text, _ in parts])
    for (_, said), encoding in zip(parts, encoded):
        ids += encoding.ids
        learn += [said] * len(encoding.ids)
    return ids, learn


class Packer:
    """Fills rows of one length with dialogues. A flag byte per token holds the dialogue's number
    within the row, from 1, and whether the token is to be learned."""

    def __init__(self, length):
        self.length, self.rows, self.open = length, [], []

    def add(self, ids, learn):
        row = next((row for row in self.open if len(row[0]) + len(ids) <= self.length
                    and row[2] < 126), None)
        if row is None:
            row = [[], [], 0]
            self.open.append(row)
            if len(self.open) > 24:  # the fullest row is done
                full = max(self.open, key=lambda row: len(row[0]))
                self.open.remove(full)
                self.rows.append(full)
        row[2] += 1
        row[0] += ids
        row[1] += [row[2] * 2 + said for said in learn]

    def take(self):
        tokens = np.zeros((len(self.rows), self.length), np.int16)
        flags = np.zeros((len(self.rows), self.length), np.uint8)
        for i, (ids, marks, _) in enumerate(self.rows):
            tokens[i, :len(ids)] = ids
            flags[i, :len(ids)] = marks
        self.rows = []
        return tokens, flags


def write_dialogues(seed, tokenizer_path, queue):
    """A worker: packs dialogues for ever."""
    os.nice(15)  # compiling the model comes first
    tokenizer = Tokenizer.from_file(tokenizer_path)
    rng, split = random.Random(f"train:{seed}"), Split("train")
    packers = {SHORT: Packer(SHORT), LONG: Packer(LONG)}
    while True:
        for _ in range(CHUNK):
            ids, learn = encode(tokenizer, generate.training_dialogue(rng, split))
            if len(ids) <= LONG and any(learn):
                packers[SHORT if len(ids) <= SHORT else LONG].add(ids, learn)
        queue.put({length: packer.take() for length, packer in packers.items()})


class Pool:
    """All rows written so far, on the training device."""

    def __init__(self, length, capacity, device):
        self.tokens = torch.zeros(capacity, length, dtype=torch.int16, device=device)
        self.flags = torch.zeros(capacity, length, dtype=torch.uint8, device=device)
        self.count, self.seen = 0, 0

    def add(self, tokens, flags):
        """Once full, new rows replace the oldest."""
        at = (self.seen + np.arange(len(tokens))) % len(self.tokens)
        at = torch.from_numpy(at).to(self.tokens.device)
        self.tokens[at] = torch.from_numpy(tokens).to(self.tokens.device)
        self.flags[at] = torch.from_numpy(flags).to(self.flags.device)
        self.seen += len(tokens)
        self.count = min(self.seen, len(self.tokens))

    def batch(self, rows):
        at = torch.randint(self.count, (rows,), device=self.tokens.device)
        return self.tokens[at].long(), self.flags[at].long()


# --- optimisation -----------------------------------------------------------------------------

def orthogonalize(stack):
    """The nearest orthogonal matrices, by Newton-Schulz iteration."""
    x = stack.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum whose step is orthogonalised: it learns such a model in a fraction of the steps
    that Adam needs. Matrices of one shape go through together."""

    def __init__(self, matrices, compiled):
        self.groups = collections.defaultdict(list)
        for matrix in matrices:
            self.groups[matrix.shape].append(matrix)
        self.momentum = {shape: torch.zeros(len(group), *shape, device=group[0].device)
                         for shape, group in self.groups.items()}
        self.orthogonalize = torch.compile(orthogonalize) if compiled else orthogonalize

    @torch.no_grad()
    def step(self, lr, decay=0.05):
        for shape, group in self.groups.items():
            grads = torch.stack([matrix.grad for matrix in group]).float()
            momentum = self.momentum[shape].lerp_(grads, 0.05)
            update = self.orthogonalize(grads.lerp(momentum, 0.95))
            update *= 0.2 * max(shape) ** 0.5  # the size of an Adam step
            torch._foreach_mul_(group, 1 - lr * decay)
            torch._foreach_add_(group, list(update.unbind()), alpha=-lr)


def batch_loss(net, tokens, flags):
    """Summed loss over what the assistant says."""
    dialogue, learn = flags >> 1, flags & 1
    length = tokens.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    mask = (dialogue[:, None, :, None] == dialogue[:, None, None, :]) & earlier
    logits = net(tokens, mask)[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (losses * learn[:, 1:].flatten()).sum()


# --- scoring ----------------------------------------------------------------------------------

@torch.no_grad()
def answers(net, prompts, stop, longest=160):
    """Greedy answers to token lists. Rows grow in place; without a cache, for it is short work."""
    device = net.model.embed_tokens.weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    tokens = torch.zeros(len(prompts), int(lengths.max()) + longest, dtype=torch.long, device=device)
    for i, prompt in enumerate(prompts):
        tokens[i, :len(prompt)] = torch.tensor(prompt)
    going = torch.ones_like(lengths, dtype=torch.bool)
    starts, rows = lengths.clone(), torch.arange(len(prompts), device=device)
    for _ in range(longest):
        width = int(lengths.max())
        mask = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        following = net(tokens[:, :width], mask)[rows, lengths - 1].argmax(-1)
        going &= following != stop
        if not going.any():
            break
        tokens[rows[going], lengths[going]] = following[going]
        lengths += going
    return [tokens[i, starts[i]:lengths[i]].tolist() for i in range(len(prompts))]


def score(net, tokenizer, records, batch=250):
    """Exact match per skill, and the wrong answers."""
    right, total, wrong = collections.Counter(), collections.Counter(), []
    prompts = [tokenizer.encode(chat.render(r["messages"], r.get("tools"), True)).ids
               for r in records]
    order = sorted(range(len(records)), key=lambda i: len(prompts[i]))
    stop = tokenizer.token_to_id("<|im_end|>")
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        for i, ids in zip(part, answers(net, [prompts[i] for i in part], stop)):
            said = tokenizer.decode(ids, skip_special_tokens=False)
            record = records[i]
            total[record["skill"]] += 1
            right[record["skill"]] += said == record["answer"]
            if said != record["answer"]:
                wrong.append({"skill": record["skill"], "asked": record["messages"][-1]["content"],
                              "wanted": record["answer"], "said": said})
    scores = {skill: round(100 * right[skill] / total[skill], 2) for skill in total}
    scores["all"] = round(100 * right.total() / total.total(), 2)
    return scores, wrong


def heldout_records(seed, count, queue):
    records = list(generate.records("heldout", seed, count))
    for record in records:
        for message in record["messages"]:
            message.pop("learn", None)
    queue.put(records)


# --- training ---------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=520, help="wall clock, all in")
    parser.add_argument("--tokens", type=int, default=131072, help="tokens in a batch")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--chunks", type=int, default=40, help="of text for the tokenizer")
    parser.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--scored", type=int, default=1500, help="held-out prompts to score")
    parser.add_argument("--start-from", help="folder of an earlier run to go on from")
    options = parser.parse_args()
    began = time.time()

    def say(*words):
        print(f"{time.time() - began:6.1f}s", *words, flush=True)

    os.makedirs(options.out, exist_ok=True)
    tokenizer_path = os.path.join(options.out, "tokenizer.json")
    if options.start_from:
        tokenizer = Tokenizer.from_file(os.path.join(options.start_from, "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(options.workers, options.chunks, CONFIG["vocab_size"])
    tokenizer.save(tokenizer_path)
    say("tokenizer of", tokenizer.get_vocab_size())

    # Processes first: a process that has a GPU must not be forked.
    queue, held = multiprocessing.Queue(64), multiprocessing.Queue()
    seed = 0 if not options.start_from else 1000
    jobs = [multiprocessing.Process(target=write_dialogues, args=(seed + i, tokenizer_path, queue),
                                    daemon=True) for i in range(options.workers)]
    jobs.append(multiprocessing.Process(target=heldout_records, args=(11, options.scored, held),
                                        daemon=True))
    for job in jobs:
        job.start()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    gpu = device == "cuda"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    net = Qwen3().to(device)
    if options.start_from:
        net.load_state_dict(load_file(os.path.join(options.start_from, "model.safetensors")))
    say("parameters:", sum(parameter.numel() for parameter in net.parameters()))
    pools = {SHORT: Pool(SHORT, 4_000_000 if gpu else 4000, device),
             LONG: Pool(LONG, 500_000 if gpu else 500, device)}

    def receive():
        while True:
            for length, packed in queue.get().items():
                pools[length].add(*packed)

    def fill(chunks):
        for _ in range(chunks):
            for length, packed in queue.get().items():
                pools[length].add(*packed)

    fill(3 * options.workers if gpu else 2)
    share = pools[LONG].count * LONG / (pools[LONG].count * LONG + pools[SHORT].count * SHORT)
    rows = {LONG: max(1, round(options.tokens * share / LONG)),
            SHORT: max(1, round(options.tokens * (1 - share) / SHORT))}
    say("rows a batch:", rows)
    threading.Thread(target=receive, daemon=True).start()

    matrices = [p for p in net.model.layers.parameters() if p.ndim == 2]
    others = [p for p in net.parameters() if not any(p is matrix for matrix in matrices)]
    muon = Muon(matrices, compiled=gpu)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01, fused=gpu)
    loss_of = torch.compile(batch_loss, dynamic=False) if gpu else batch_loss
    training_ends = options.seconds - (40 if gpu else 5)  # what scoring takes
    started, step, warm = None, 0, 200 if not options.start_from else 50
    while True:
        now = time.time() - began
        done = 0 if started is None else (now - started) / (training_ends - started)
        if done >= 1:
            break
        rate = options.rate * min(1, (step + 1) / warm) * (1 - done)
        total = 0
        batches = [pools[length].batch(count) for length, count in rows.items()]
        learned = sum((flags & 1).sum() for _, flags in batches)
        for tokens, flags in batches:
            with torch.autocast(device, dtype=torch.bfloat16, enabled=gpu):
                loss = loss_of(net, tokens, flags) / learned
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for group in adam.param_groups:
            group["lr"] = rate
        adam.step()
        muon.step(rate)
        net.zero_grad(set_to_none=True)
        step += 1
        if started is None:
            total.item()
            started = time.time() - began  # compilation does not count as training
        if step % (100 if gpu else 2) == 0:
            # .item() waits for the GPU, which also keeps the clock honest.
            say(f"step {step} loss {total.item():.4f} rate {rate:.5f} rows",
                {length: pool.seen for length, pool in pools.items()})

    say("steps:", step)
    save_file({name: value.half().contiguous() for name, value in net.state_dict().items()},
              os.path.join(options.out, "model.safetensors"))
    with open(os.path.join(options.out, "config.json"), "w") as file:
        json.dump(CONFIG, file, indent=2)
    net.eval()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=gpu):
        scores, wrong = score(net, tokenizer, held.get())
    with open(os.path.join(options.out, "scores.json"), "w") as file:
        json.dump({"scores": scores, "wrong": wrong, "steps": step}, file, ensure_ascii=False, indent=1)
    say(json.dumps(scores))
    for job in jobs:
        job.kill()
    os._exit(0)  # the receiving thread never ends by itself


if __name__ == "__main__":
    main()
