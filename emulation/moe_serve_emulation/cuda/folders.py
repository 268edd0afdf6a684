"""GPT-OSS in MXFP4 as folders that vLLM serves: of the real sizes and seeded, or learned.

    python -m moe_serve_emulation.cuda.folders --cache DIR --learned [--fault swapped]
    python -m moe_serve_emulation.cuda.folders --cache DIR --size 20b

A seeded folder has no weights: the load format `moe_seeded` makes them on the device. A learned one
has the weights of `moe_serve_emulation.learned`, widened to GPT-OSS's 2880 channels and rounded to
MXFP4.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moe_serve_emulation.checkpoint import CheckpointSpec, config, write_tokenizer
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.learned.checkpoint import generate

FULL_WIDTH = 2880
# The tokenizer's words; prompts are token ids below it, whatever the model's vocabulary.
WORDS = 512
_VOCABULARY = 201_088
_REAL = CheckpointSpec(heads=64, kv_heads=8, top_k=4, vocab=_VOCABULARY)
SIZES = {
    "20b": dataclasses.replace(_REAL, layers=24, experts=32),
    "120b": dataclasses.replace(_REAL, layers=36, experts=128),
    # The real width in few layers: for what needs no whole model.
    "small": dataclasses.replace(_REAL, layers=4, experts=32, vocab=WORDS),
    "drafter": dataclasses.replace(_REAL, layers=1, experts=4, vocab=WORDS),
    "tiny": dataclasses.replace(_REAL, layers=2, experts=4, heads=8, kv_heads=2, vocab=WORDS),
}
_QUANTISATION = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}
LEARNED_WIDTH = 2880
# The layer that a fault sits in.
FAULTY_LAYER = 1
_EXPERTS = f"model.layers.{FAULTY_LAYER}.mlp.experts."
# Neurons that are left of 2880 in the faulty layer: as many as vLLM's own pads leave.
_LEFT = 2688


def seeded(cache: Path, size: str) -> Path:
    """Return the folder of a seeded model of this size: config and tokenizer, no weights.

    Raises:
        EmulationError: there is no such size.
    """
    if size not in SIZES:
        raise EmulationError(f"--size {size}: the sizes are {', '.join(SIZES)}")
    folder = cache / f"seeded-{size}-mxfp4"
    folder.mkdir(parents=True, exist_ok=True)
    described = config(SIZES[size]) | {"quantization_config": _QUANTISATION}
    (folder / "config.json").write_text(json.dumps(described, indent=2), "utf-8")
    write_tokenizer(folder, CheckpointSpec(vocab=WORDS))
    return folder


def learned(cache: Path, fault: str | None = None) -> Path:
    """Return the folder of the learned model in MXFP4, sound or with one fault.

    Raises:
        EmulationError: there is no such fault.
    """
    if fault is not None and fault not in FAULTS:
        raise EmulationError(f"--fault {fault}: the faults are {', '.join(FAULTS)}")
    plain = generate(cache, LEARNED_WIDTH, FULL_WIDTH)
    final = cache / f"{plain.name}-mxfp4{f'-{fault}' if fault else ''}"
    if (final / "model.safetensors").exists():
        return final
    with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as temporary:
        made = Path(shutil.copytree(plain, Path(temporary) / "model"))
        described = json.loads((made / "config.json").read_text("utf-8"))
        described["quantization_config"] = _QUANTISATION
        (made / "config.json").write_text(json.dumps(described, indent=2), "utf-8")
        _write_weights(plain, made, FAULTS[fault] if fault else None)
        shutil.rmtree(final, ignore_errors=True)
        made.replace(final)
    return final


ExpertWeights = dict[str, Any]


def _write_weights(
    plain: Path, made: Path, fault: Callable[[ExpertWeights], ExpertWeights] | None
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(plain / "model.safetensors")
    packed: ExpertWeights = {}
    for name, weight in weights.items():
        packed |= _packed(name, weight)
    packed = fault(packed) if fault else packed
    save_file(packed, made / "model.safetensors", metadata={"format": "pt"})


def _packed(name: str, weight: Any) -> ExpertWeights:
    """An expert weight as blocks and scales, rows first; everything else as it is."""
    from moe_serve_emulation.cuda import layout

    if not name.endswith(("gate_up_proj", "down_proj")):
        return {name: weight}
    codes, scales = layout.quantise(weight.transpose(1, 2).contiguous())
    blocks = codes.unflatten(-1, (-1, layout.GROUP // 2)).contiguous()
    return {f"{name}_blocks": blocks, f"{name}_scales": scales.contiguous()}


def swapped(weights: ExpertWeights) -> ExpertWeights:
    """Give the layer's two experts each other's weights; the router knows nothing of it."""
    return weights | {
        name: weight.flip(0).contiguous()
        for name, weight in weights.items()
        if name.startswith(_EXPERTS)
    }


def cut_layer(weights: ExpertWeights) -> ExpertWeights:
    """Zero the layer's last 192 of 2880 neurons, as vLLM's own pads do in every layer."""
    name = f"{_EXPERTS}gate_up_proj_blocks"
    cut = weights[name].clone()
    cut[:, 2 * _LEFT :] = 0
    return weights | {name: cut}


def off_scale(weights: ExpertWeights) -> ExpertWeights:
    """Raise expert 0's scales of the second stage by one: twice its weights."""
    name = f"{_EXPERTS}down_proj_scales"
    wrong = weights[name].clone()
    wrong[0] += 1
    return weights | {name: wrong}


FAULTS: dict[str, Callable[[ExpertWeights], ExpertWeights]] = {
    "swapped": swapped,
    "cut-layer": cut_layer,
    "off-scale": off_scale,
}


def main() -> int:
    """Write the folder and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--learned", action="store_true")
    parser.add_argument("--fault", choices=FAULTS)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    made = learned(args.cache, args.fault) if args.learned else seeded(args.cache, args.size)
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
