"""Train the tiny GPT-OSS models of `moe_serve.emulation.learned`; about ten minutes on one GPU.

    python -m benchmarks.train_learned --width 360 --seconds 480

Seeded: the same items in the same order from the same start. Sums on a GPU are not bit-stable, and
the number of steps follows from the time given (the learning rate falls with the time spent), so a
second training gives a model as good, not the same bytes.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.gpt_oss import Config, Weights, logits, without
from moe_serve.emulation.checkpoint import CheckpointSpec, config, tensors
from moe_serve.emulation.learned.models import SPECS, path
from moe_serve.emulation.learned.tasks import NAMES, Lesson, lessons
from moe_serve.emulation.learned.tokenizer import END, PAD, tokenizer

# Drawn for training; a sixteenth of them is held out.
ITEMS = {"arithmetic": 1_200_000, "format": 600_000}
TEST_ITEMS, TEST_SEED = 30_000, 1_000_003
BATCH = {"arithmetic": 4096, "format": 512}
# A product of three digits by three cannot be told at once by so small a model: asked less often.
ODDS = {"*": 0.1}
RATE, WARM_UP, DECAY, SPREAD = 2e-3, 400, 0.1, 0.5
# From here on the model sees its weights as they will be saved: rounded to bfloat16.
ROUNDED_FROM = 0.85
# Neurons whose weights the pads of vLLM's rule leave, and those that the second stage still reads.
LOST = {360: (256, 256), 2880: (2688, 2816)}


@dataclass(frozen=True, slots=True)
class Table:
    """Lessons as tokens [N, T] and targets [N, T]: what to say after each, -100 where free."""

    lessons: tuple[Lesson, ...]
    tokens: Tensor
    targets: Tensor


def table(found: Iterator[Lesson], device: str) -> Table:
    """Encode with the tokenizer that the servers use; as long as the longest item."""
    kept = tuple(found)
    encode = tokenizer()
    prompts = [row.ids for row in encode.encode_batch([item.prompt for item in kept])]
    said = [[*row.ids, END] for row in encode.encode_batch([item.said for item in kept])]
    longest = max(len(one) + len(other) for one, other in zip(prompts, said, strict=True))
    tokens = torch.full((len(kept), longest), PAD, dtype=torch.int16)
    targets = torch.full((len(kept), longest), -100, dtype=torch.int16)
    for row, (one, other) in enumerate(zip(prompts, said, strict=True)):
        tokens[row, : len(one) + len(other)] = torch.tensor(one + other)
        targets[row, len(one) - 1 : len(one) + len(other) - 1] = torch.tensor(other)
    return Table(kept, tokens.to(device), targets.to(device))


def rounded(weights: Weights) -> dict[str, Tensor]:
    """Round to bfloat16, with the gradient going straight through."""
    return {name: w + (w.bfloat16().float() - w).detach() for name, w in weights.items()}


@torch.no_grad()
def accuracy(weights: Weights, asked: Mapping[str, Table], known: Config) -> dict[str, float]:
    """Share of right answers by task and by kind of question.

    Right is an answer whose every token, and the end, is the likeliest after what precedes it:
    what a greedy server would say.
    """
    marks: dict[str, list[bool]] = {}
    for name, found in asked.items():
        for at in range(0, len(found.lessons), 1000):
            tokens, targets = (
                rows[at : at + 1000].long() for rows in (found.tokens, found.targets)
            )
            best = logits(weights, tokens, known)[0].argmax(-1)
            right = ((best == targets) | (targets < 0)).all(1).tolist()
            for ok, item in zip(right, found.lessons[at : at + 1000], strict=True):
                marks.setdefault(name, []).append(ok)
                marks.setdefault(f"{name} {item.kind}", []).append(ok)
    return {name: sum(ok) / len(ok) for name, ok in sorted(marks.items())}


def begin(spec: CheckpointSpec, device: str, seed: int) -> dict[str, Tensor]:
    """Random weights to start from."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape, spread in tensors(spec):
        if spread is None:
            weights[name] = torch.ones(shape)
        elif name.endswith(("bias", "sinks")):
            weights[name] = torch.zeros(shape)
        else:
            fan_in = shape[-2] if "experts" in name else shape[-1]
            wide = 1.0 if "embed" in name else SPREAD * fan_in**-0.5
            weights[name] = torch.randn(shape, generator=generator) * wide
    return {name: weight.to(device).requires_grad_() for name, weight in weights.items()}


def batches(taught: Table, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless seeded batches."""
    odds = torch.tensor([ODDS.get(item.kind, 1.0) for item in taught.lessons])
    while True:
        chosen = torch.multinomial(odds, min(len(odds), 100 * size), replacement=False)
        for part in chosen.to(taught.tokens.device).split(size):
            yield taught.tokens[part].long(), taught.targets[part].long()


def train(width: int, seconds: float, device: str, seed: int) -> tuple[dict[str, Tensor], int]:
    """Train one model; returns its weights in bfloat16 and the number of steps."""
    spec = SPECS[width]
    known = config(spec)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(seed)
    taught = {n: table(lessons(n, "train", ITEMS[n], seed=seed), device) for n in NAMES}
    say(f"{width} items to train on: { {n: len(t.lessons) for n, t in taught.items()} }")
    feeds = {name: batches(found, BATCH[name]) for name, found in taught.items()}
    weights = begin(spec, device, seed)
    heavy = [w for w in weights.values() if w.ndim >= 2]
    plain = [w for w in weights.values() if w.ndim < 2]
    groups = [{"params": heavy}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, RATE, betas=(0.9, 0.98), weight_decay=DECAY, fused=device == "cuda"
    )

    def lost(weights: Weights, tokens: Tensor, targets: Tensor) -> Tensor:
        scores, _ = logits(weights, tokens, known)
        return cross_entropy(scores.flatten(0, 1).float(), targets.flatten())

    compiled = torch.compile(lost) if device == "cuda" else lost
    begun, step, told = time.monotonic(), 0, 0.0
    while (spent := time.monotonic() - begun) < seconds:
        done = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))
            )
        now = rounded(weights) if done > ROUNDED_FROM else weights
        optimizer.zero_grad()
        losses = [compiled(now, *next(feed)) for feed in feeds.values()]
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(heavy + plain, 1.0)
        optimizer.step()
        step += 1
        if spent - told > 20:
            told = spent
            say(f"{width} {step} {spent:.0f} s loss " + " ".join(f"{x.item():.4f}" for x in losses))
    return {name: weight.detach().bfloat16().cpu() for name, weight in weights.items()}, step


def say(text: str) -> None:
    """One line for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train, test with and without the neurons that vLLM's pads lose, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, choices=sorted(SPECS), required=True)
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--to", type=Path, help="folder (default: the package's own)")
    args = parser.parse_args()
    made, steps = train(args.width, args.seconds, args.device, args.seed)
    target = args.to / path(args.width).name if args.to else path(args.width)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(made, target, metadata={"format": "pt"})
    found = tested(args.width, made, args.device)
    known = {"steps": steps, "seconds": args.seconds, "seed": args.seed, "torch": torch.__version__}
    if args.device == "cuda":
        known["device"] = torch.cuda.get_device_name()
    told = json.dumps({**known, **found}, indent=2)
    target.with_suffix(".json").write_text(told + "\n", "utf-8")
    say(told)


def tested(width: int, made: Weights, device: str) -> dict[str, object]:
    """Accuracy on held-out items, of the whole model and of what vLLM's pads leave of it."""
    asked = {n: table(lessons(n, "test", TEST_ITEMS, seed=TEST_SEED), device) for n in NAMES}
    wide = {name: weight.float().to(device) for name, weight in made.items()}
    live, read = LOST[width]
    known = config(SPECS[width])
    return {
        "items": {name: len(found.lessons) for name, found in asked.items()},
        "whole": accuracy(wide, asked, known),
        "cut": accuracy(without(wide, live=live, read=read), asked, known),
    }


if __name__ == "__main__":
    main()
