"""A learned model as a folder that vLLM serves, in its own width or in GPT-OSS's real one.

    python -m moe_serve_emulation.learned.checkpoint --cache DIR --intermediate 360 [--hidden 2880]

A wider model gives the same answers: the added channels of the residual stream are zero. A norm
over more channels, most of them zero, divides by less; the norms' weights and epsilon compensate.
Its weights take a kernel as long as real ones, and lossy pads lose learned neurons.
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from moe_serve_emulation.checkpoint import CheckpointSpec, config
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.learned import tokenizer
from moe_serve_emulation.learned.models import SPECS, path

# The dimension of a tensor that runs over the residual stream, by the end of its name.
_HIDDEN = {
    "norm.weight": 0,
    "embed_tokens.weight": 1,
    "lm_head.weight": 1,
    "router.weight": 1,
    "q_proj.weight": 1,
    "k_proj.weight": 1,
    "v_proj.weight": 1,
    "o_proj.weight": 0,
    "o_proj.bias": 0,
    "gate_up_proj": 1,
    "down_proj": 2,
    "down_proj_bias": 1,
}


def spec_of(intermediate: int, hidden: int | None = None) -> CheckpointSpec:
    """The sizes of a learned model, widened to `hidden` channels.

    Raises:
        EmulationError: there is no such model, or it has more channels than that.
    """
    if intermediate not in SPECS:
        known = ", ".join(map(str, SPECS))
        raise EmulationError(f"no learned model has {intermediate} neurons; there are {known}")
    learned = SPECS[intermediate]
    if hidden is not None and hidden < learned.hidden:
        raise EmulationError(f"{hidden} channels are fewer than the model's {learned.hidden}")
    return dataclasses.replace(learned, hidden=hidden or learned.hidden)


def generate(cache: Path, intermediate: int, hidden: int | None = None) -> Path:
    """The model's folder in `cache`, which the first call writes atomically.

    Raises:
        EmulationError: there is no such model.
    """
    spec = spec_of(intermediate, hidden)
    digest = hashlib.sha256(path(intermediate).read_bytes()).hexdigest()[:16]
    final = cache / f"learned-{spec.intermediate}-{spec.hidden}-{digest}"
    if (final / "model.safetensors").exists():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        _write(made, intermediate, spec)
        shutil.rmtree(final, ignore_errors=True)
        made.replace(final)
    return final


def _write(folder: Path, intermediate: int, spec: CheckpointSpec) -> None:
    from safetensors.torch import load_file, save_file

    narrow = SPECS[intermediate].hidden
    weights = load_file(path(intermediate))
    wide = {name: _widened(name, weight, spec.hidden) for name, weight in weights.items()}
    save_file(wide, str(folder / "model.safetensors"), metadata={"format": "pt"})
    settings = config(spec)
    settings["rms_norm_eps"] = 1e-5 * narrow / spec.hidden
    settings["eos_token_id"], settings["pad_token_id"] = tokenizer.END, tokenizer.PAD
    (folder / "config.json").write_text(json.dumps(settings, indent=2), "utf-8")
    tokenizer.write(folder)


def _widened(name: str, weight: Any, hidden: int) -> Any:
    ends = [end for end in _HIDDEN if name.endswith(end)]
    if not ends:
        return weight
    dim = _HIDDEN[ends[0]]
    narrow = weight.shape[dim]
    shape = list(weight.shape)
    shape[dim] = hidden
    wide = weight.new_zeros(shape)
    wide.narrow(dim, 0, narrow).copy_(weight)
    return (wide * (narrow / hidden) ** 0.5).to(weight.dtype) if "norm" in name else wide


def main() -> int:
    """Write the model's folder and print its path."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--intermediate", type=int, choices=sorted(SPECS), required=True)
    parser.add_argument("--hidden", type=int, help="widen to so many channels")
    args = parser.parse_args()
    sys.stdout.write(f"{generate(args.cache, args.intermediate, args.hidden)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
