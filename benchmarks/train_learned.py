"""Train the tiny GPT-OSS models of `moe_serve.emulation.learned`; a few minutes on one GPU.

    python benchmarks/train_learned.py --width 360 --to moe_serve/emulation/learned/weights

Seeded: the same items in the same order from the same start. Sums on a GPU are not bit-stable from
one machine to another, so a second training gives equal weights only on the same software and GPU.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.gpt_oss import logits, without
from moe_serve.emulation.checkpoint import config, tensors
from moe_serve.emulation.learned.tasks import END, LONGEST, NAMES, PAD, Item, items
from moe_serve.emulation.learned.weights import WIDTHS

PER_TASK, TEST_PER_TASK = 100_000, 500
BATCH, RATE, DECAY, BALANCE = 4096, 2e-3, 0.1, 0.02
SPREAD = 0.5
# From here on the model sees its weights as it will be saved: rounded to bfloat16.
ROUNDED_FROM = 0.8

Weights = dict[str, Tensor]


def tables(found: tuple[Item, ...], device: str) -> tuple[Tensor, Tensor]:
    """Tokens [N, T] and targets [N, T]: what to say after each token, -100 where it is free."""
    tokens = torch.full((len(found), LONGEST), PAD)
    targets = torch.full((len(found), LONGEST), -100)
    for row, item in enumerate(found):
        said = torch.tensor((*item.prompt, *item.answer, END))
        tokens[row, : len(said)] = said
        start = len(item.prompt)
        targets[row, start - 1 : len(said) - 1] = said[start:]
    return tokens.to(device), targets.to(device)


def rounded(weights: Weights) -> Weights:
    """Round to bfloat16, with the gradient going straight through."""
    return {name: w + (w.bfloat16().float() - w).detach() for name, w in weights.items()}


@torch.no_grad()
def accuracy(weights: Weights, found: tuple[Item, ...], spec: dict[str, int]) -> dict[str, float]:
    """Share of the items whose every answer token, and the end, come first; one value a task."""
    device = weights["lm_head.weight"].device.type
    tokens, targets = tables(found, device)
    best = torch.cat([logits(weights, part, spec)[0].argmax(-1) for part in tokens.split(1000)])
    right = ((best == targets) | (targets < 0)).all(1).tolist()
    return {
        name: sum(ok for ok, item in zip(right, found, strict=True) if item.task == name)
        / max(1, sum(item.task == name for item in found))
        for name in NAMES
    }


def begin(spec, device: str, seed: int) -> Weights:
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


def train(width: int, steps: int, device: str, seed: int) -> Weights:
    """Train one model; returns its weights in bfloat16."""
    spec = WIDTHS[width]
    known = config(spec)
    torch.backends.cuda.matmul.allow_tf32 = True
    tokens, targets = tables(items("train", PER_TASK, seed=seed), device)
    test = items("test", TEST_PER_TASK, seed=seed)
    sys.stderr.write(f"{len(tokens)} items to train on, {len(test)} to test on\n")
    # Small tasks have fewer items; every task is asked equally often.
    names = tokens[:, 0]
    odds = (1.0 / names.bincount().float())[names]
    weights = begin(spec, device, seed)
    plain = [w for w in weights.values() if w.ndim < 2]
    heavy = [w for w in weights.values() if w.ndim >= 2]
    groups = [{"params": heavy}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, RATE, betas=(0.9, 0.98), weight_decay=DECAY, fused=device == "cuda"
    )
    torch.manual_seed(seed)
    begun = time.monotonic()
    for step in range(steps):
        done = step / steps
        rate = RATE * min(1, step / 500) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step % 100 == 0:
            drawn = torch.multinomial(odds, 100 * BATCH, replacement=True).split(BATCH)
        chosen = drawn[step % 100]
        now = rounded(weights) if done > ROUNDED_FROM else weights
        scores, imbalance = logits(now, tokens[chosen], known)
        loss = cross_entropy(scores.flatten(0, 1), targets[chosen].flatten())
        optimizer.zero_grad()
        (loss + BALANCE * imbalance).backward()
        torch.nn.utils.clip_grad_norm_(heavy + plain, 1.0)
        optimizer.step()
        if (step + 1) % 2000 == 0 or step + 1 == steps:
            seen = shown(accuracy(rounded(weights), test, known))
            took = time.monotonic() - begun
            sys.stderr.write(
                f"{width} {step + 1} {took:.0f} s loss {loss.item():.4f} "
                f"experts {imbalance.item():.2f} {seen}\n"
            )
    return {name: weight.detach().bfloat16().cpu() for name, weight in weights.items()}


def shown(found: dict[str, float]) -> str:
    """One line: the mean, then every task."""
    mean = sum(found.values()) / len(found)
    return f"{mean:.4f}  " + " ".join(f"{name} {share:.3f}" for name, share in found.items())


def main() -> None:
    """Train, test with and without the neurons that `rounded` pads lose, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, choices=sorted(WIDTHS), required=True)
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--to", type=Path, required=True, help="folder of the weights")
    args = parser.parse_args()
    made = train(args.width, args.steps, args.device, args.seed)
    args.to.mkdir(parents=True, exist_ok=True)
    save_file(made, args.to / f"{args.width}.safetensors", metadata={"format": "pt"})
    known, test = config(WIDTHS[args.width]), items("test", TEST_PER_TASK, seed=args.seed)
    wide = {name: weight.float() for name, weight in made.items()}
    live, read = LOST[args.width]
    for what, weights in (("whole", wide), ("cut", without(wide, live=live, read=read))):
        print(f"{args.width} {what}: {shown(accuracy(weights, test, known))}")


# Neurons whose weights the `rounded` pads leave, and those that the second stage still reads.
LOST = {360: (256, 256), 2880: (2688, 2816)}

if __name__ == "__main__":
    main()
