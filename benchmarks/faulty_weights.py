"""A learned model with one thing wrong in it: what loaders and kernels have been seen to get wrong.

Each fault sits in a single layer and leaves shapes and config as they are: a server starts with it,
is healthy, and says something else.

    python -m benchmarks.faulty_weights --cache DIR --intermediate 360 [--fault swapped]
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from moe_serve_emulation.learned.checkpoint import generate
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.gpt_oss import without

Weights = dict[str, Tensor]
LAYER = 1
_EXPERTS = f"model.layers.{LAYER}.mlp.experts."


def swapped(weights: Weights) -> Weights:
    """The two experts in each other's place; the router knows nothing of it."""
    return weights | {n: w.flip(0) for n, w in weights.items() if n.startswith(_EXPERTS)}


def off_scale(weights: Weights) -> Weights:
    """Expert 0's second stage with scales one exponent too large: twice its weights."""
    name = f"{_EXPERTS}down_proj"
    wrong = weights[name].clone()
    wrong[0] *= 2
    return weights | {name: wrong}


def cut_layer(weights: Weights) -> Weights:
    """The layer's neurons from 256 on lost, as TP=8 lost them, in this layer alone."""
    blocking = without(weights, live=256, read=256)
    return weights | {n: blocking[n].contiguous() for n in weights if n.startswith(_EXPERTS)}


FAULTS: dict[str, Callable[[Weights], Weights]] = {
    "swapped": swapped,
    "off-scale": off_scale,
    "cut-layer": cut_layer,
}


def doctored(cache: Path, intermediate: int, fault: str) -> Path:
    """The learned model's folder with this fault; made at the first call, whole or not at all."""
    sound = generate(cache, intermediate)
    final = cache / f"{sound.name}-{fault}"
    if not final.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as temporary:
            made = Path(shutil.copytree(sound, Path(temporary) / "model"))
            weights = FAULTS[fault](load_file(sound / "model.safetensors"))
            save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
            made.replace(final)
    return final


def main() -> None:
    """Write the folder, sound without a fault, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--intermediate", type=int, required=True)
    parser.add_argument("--fault", choices=FAULTS)
    args = parser.parse_args()
    if args.fault:
        made = doctored(args.cache, args.intermediate, args.fault)
    else:
        made = generate(args.cache, args.intermediate)
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main()
