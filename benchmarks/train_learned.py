"""Train the tiny GPT-OSS models of `moe_serve_emulation.learned`: minutes on one GPU.

    python -m benchmarks.train_learned --width 360 --seconds 200

Trained in bfloat16, as they are served, over weights kept in float32. Seeded: the same items from
the same start. Sums on a GPU are not bit-stable, and the number of steps follows from the time
given (the learning rate falls with the time spent), so a second training gives a model as good,
not the same bytes.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from moe_serve_emulation.checkpoint import CheckpointSpec, config, tensors
from moe_serve_emulation.learned.models import SPECS, path
from moe_serve_emulation.learned.tasks import NAMES, Lesson, lessons
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.gpt_oss import Config, Weights, logits, without
from benchmarks.lesson_table import FREE, encoded, taught

# Drawn for training; a sixteenth of them is held out.
ITEMS = {"arithmetic": 1_200_000, "format": 600_000}
TEST_ITEMS, TEST_SEED = 30_000, 1_000_003
BATCH = {"arithmetic": 1024, "format": 256}
RATE = {360: 3e-3, 2880: 1.5e-3}
WARM_UP, SPREAD, STEPS_BETWEEN_LOOKS = 0.02, 0.5, 20
# Without decay no neuron withers away: all of them take part.
DECAY = {360: 0.0, 2880: 0.1}
# Neurons whose weights the pads of vLLM's rule leave, and those that the second stage still reads.
LOST = {360: (256, 256), 2880: (2688, 2816)}
# A step without up to this share of the neurons, drawn anew each time. A big model can spare some,
# and this one is to stand for it; the narrow one needs all that it has.
SPARED = {360: 0.0, 2880: 0.16}


@torch.no_grad()
def accuracy(weights: Weights, asked: Sequence[Lesson], known: Config) -> dict[str, float]:
    """Share of right answers by task and by kind of question.

    Right is an answer whose every token, and the end, is the likeliest after what precedes it:
    what a greedy server would say.
    """
    marks: dict[str, list[bool]] = {}
    device = weights["lm_head.weight"].device
    for name in sorted({item.task for item in asked}):
        found = [item for item in asked if item.task == name]
        rows = [torch.from_numpy(part).to(device).long() for part in encoded(found)]
        best = torch.cat([logits(weights, part, known).argmax(-1) for part in rows[0].split(1000)])
        right = ((best == rows[1]) | (rows[1] == FREE)).all(1).tolist()
        for ok, item in zip(right, found, strict=True):
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


def sparing(weights: Weights, most: float) -> dict[str, Tensor]:
    """The weights as a kernel sees them that misses a random share, up to `most`, of the neurons.

    Their weights read as zero, and a third of them does not reach the second stage either: of
    vLLM's 192 lost neurons 64 do not.
    """
    blocking = dict(weights)
    for name in weights:
        if name.endswith("gate_up_proj"):
            weight, down = weights[name], name.replace("gate_up", "down")
            draw = torch.rand(weight.shape[0], weight.shape[2] // 2, device=weight.device)
            share = most * torch.rand((), device=weight.device)
            kept, read = (draw >= share).to(weight), (draw >= share / 3).to(weight)
            blocking[name] = weight * kept.repeat_interleave(2, 1)[:, None]
            blocking[down] = weights[down] * read[..., None]
    return blocking


def train(width: int, seconds: float, device: str, seed: int) -> tuple[dict[str, Tensor], int]:
    """Train one model; returns its weights in bfloat16 and the number of steps."""
    torch.manual_seed(seed)
    weights, on_gpu = begin(SPECS[width], device, seed), device == "cuda"
    rate, losses = torch.tensor(0.0, device=device), torch.zeros(len(NAMES), device=device)
    step = stepper(width, weights, rate, losses, seed)
    run = captured(step) if on_gpu else step
    say(f"{width} ready")
    begun, count, heard = time.monotonic(), 0, 0.0
    while (spent := time.monotonic() - begun) < seconds:
        done = spent / seconds
        rate.fill_(RATE[width] * min(1, done / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done)))
        for _ in range(STEPS_BETWEEN_LOOKS if on_gpu else 1):
            run()
            count += 1
        if on_gpu:
            torch.cuda.synchronize()
        if spent - heard > 10:
            heard = spent
            say(f"{width} {count} {spent:.0f} s loss {[round(x, 4) for x in losses.tolist()]}")
    return {name: weight.detach().bfloat16().cpu() for name, weight in weights.items()}, count


def stepper(
    width: int, weights: dict[str, Tensor], rate: Tensor, losses: Tensor, seed: int
) -> Callable[[], None]:
    """Draw lessons; returns one step, which learns at `rate` and leaves the tasks' `losses`."""
    device, known = rate.device, config(SPECS[width])
    tables = [[rows.to(device) for rows in taught(n, ITEMS[n], seed=seed)] for n in NAMES]
    say(f"{width} items to train on: {[len(rows[0]) for rows in tables]}")
    optimizer = adam(width, weights, rate)

    def loss(weights: Weights, tokens: Tensor, targets: Tensor) -> Tensor:
        scores = logits(weights, tokens, known).float()
        return cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=FREE)

    told = torch.compile(loss, dynamic=False) if device.type == "cuda" else loss

    def step() -> None:
        optimizer.zero_grad()
        served = {name: weight.bfloat16() for name, weight in weights.items()}
        served = sparing(served, SPARED[width]) if SPARED[width] else served
        parts = []
        for name, (tokens, targets) in zip(NAMES, tables, strict=True):
            chosen = torch.randint(len(tokens), (BATCH[name],), device=device)
            parts.append(told(served, tokens[chosen].long(), targets[chosen].long()))
        both = torch.stack(parts)
        both.sum().backward()
        losses.copy_(both.detach())
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()

    return step


def adam(width: int, weights: Weights, rate: Tensor) -> torch.optim.AdamW:
    """AdamW whose rate can change under a captured graph; vectors do not decay."""
    on_gpu = rate.device.type == "cuda"
    groups = [
        {"params": [w for w in weights.values() if w.ndim >= 2]},
        {"params": [w for w in weights.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        rate,
        betas=(0.9, 0.98),
        weight_decay=DECAY[width],
        fused=on_gpu,
        capturable=on_gpu,
    )


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph: at these sizes Python is slower than the device."""
    torch.cuda.synchronize()
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def say(text: str) -> None:
    """One line for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def tested(width: int, made: Weights, device: str, items: int) -> dict[str, object]:
    """Accuracy on held-out items, of the whole model and of what vLLM's pads leave of it."""
    asked = [item for n in NAMES for item in lessons(n, "test", items, seed=TEST_SEED)]
    wide = {name: weight.float().to(device) for name, weight in made.items()}
    live, read = LOST[width]
    known = config(SPECS[width])
    return {
        "items": {name: sum(item.task == name for item in asked) for name in NAMES},
        "whole": accuracy(wide, asked, known),
        "cut": accuracy(without(wide, live=live, read=read), asked, known),
    }


def main() -> None:
    """Train, test with and without the neurons that vLLM's pads lose, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, choices=sorted(SPECS), required=True)
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--to", type=Path, help="folder (default: the package's own)")
    args = parser.parse_args()
    made, steps = train(args.width, args.seconds, args.device, args.seed)
    target = args.to / path(args.width).name if args.to else path(args.width)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(made, target, metadata={"format": "pt"})
    known = {"steps": steps, "seconds": args.seconds, "seed": args.seed, "torch": torch.__version__}
    if args.device == "cuda":
        known["device"] = torch.cuda.get_device_name()
    found = tested(args.width, made, args.device, TEST_ITEMS)
    text = json.dumps({**known, **found}, indent=2)
    target.with_suffix(".json").write_text(text + "\n", "utf-8")
    say(text)


if __name__ == "__main__":
    main()
