"""The plugin's environment variables, read once a process, in this one place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.padding.contract import PaddingPolicy
from moe_serve.telemetry.record import DEFAULT_RECORD_DIR, RECORD_DIR
from moe_serve.vllm_plugin.markers.layers import FIRST, LAST, WISH

PADDING = "MOE_SERVE_PADDING"
MAX_LOSS = "MOE_SERVE_MAX_NEURON_LOSS"
MARKERS = "MOE_SERVE_MARKERS"
LAYERS = "MOE_SERVE_MARKER_LAYERS"
BUDGET = "MOE_SERVE_MARKER_BUDGET"
AUTO, OFF = "auto", "off"
DEFAULT_LAYERS, DEFAULT_BUDGET = f"{FIRST},{LAST}", 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """What the operator asked for; `policy` None means off: stock vLLM.

    `markers`: whether kernels are timed. `layers`: which MoE layers' are. `budget`: the share of a
    step that this may cost.
    """

    policy: PaddingPolicy | None
    max_loss: float
    record_dir: Path
    markers: bool = True
    layers: str = DEFAULT_LAYERS
    budget: float = DEFAULT_BUDGET


def from_environment(environment: Mapping[str, str] = os.environ) -> PluginSettings:
    """Read the settings.

    Raises:
        UsageError: a variable has a value that it cannot have.
    """
    return PluginSettings(
        policy=_policy(environment.get(PADDING, PaddingPolicy.ALIGNED.value)),
        max_loss=_fraction(MAX_LOSS, environment.get(MAX_LOSS, "0")),
        record_dir=Path(environment.get(RECORD_DIR) or DEFAULT_RECORD_DIR),
        markers=_switch(environment.get(MARKERS, AUTO)),
        layers=_layers(environment.get(LAYERS, DEFAULT_LAYERS)),
        budget=_fraction(BUDGET, environment.get(BUDGET, str(DEFAULT_BUDGET))),
    )


def _policy(text: str) -> PaddingPolicy | None:
    if text == OFF:
        return None
    try:
        return PaddingPolicy(text)
    except ValueError:
        allowed = ", ".join([*(policy.value for policy in PaddingPolicy), OFF])
        raise UsageError(f"{PADDING}={text!r} is not allowed; set one of {allowed}") from None


def _switch(text: str) -> bool:
    if text not in (AUTO, OFF):
        raise UsageError(f"{MARKERS}={text!r} is not allowed; set {AUTO} or {OFF}")
    return text == AUTO


def _layers(text: str) -> str:
    if not WISH.fullmatch(text):
        raise UsageError(
            f"{LAYERS}={text!r} is not allowed; set first, last, all or numbers of layers, "
            "between commas"
        )
    return text


def _fraction(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{name}={text!r} is not allowed; set a fraction from 0 to 1")
    return value
