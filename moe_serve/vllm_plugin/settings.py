"""The plugin's environment variables, read once a process, in this one place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.padding.contract import Policy

PADDING = "MOE_SERVE_PADDING"
MAX_LOSS = "MOE_SERVE_MAX_NEURON_LOSS"
RECORD_DIR = "MOE_SERVE_RECORD_DIR"
OFF = "off"
DEFAULT_RECORD_DIR = "/dev/shm/moe-serve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator asked for; `policy` None means off: stock vLLM."""

    policy: Policy | None
    max_loss: float
    record_dir: Path


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        UsageError: a variable has a value that it cannot have.
    """
    return Settings(
        policy=_policy(environment.get(PADDING, Policy.ALIGNED.value)),
        max_loss=_fraction(environment.get(MAX_LOSS, "0")),
        record_dir=Path(environment.get(RECORD_DIR) or DEFAULT_RECORD_DIR),
    )


def _policy(text: str) -> Policy | None:
    if text == OFF:
        return None
    try:
        return Policy(text)
    except ValueError:
        allowed = ", ".join([*(policy.value for policy in Policy), OFF])
        raise UsageError(f"{PADDING}={text!r} is not allowed; set one of {allowed}") from None


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{MAX_LOSS}={text!r} is not allowed; set a fraction from 0 to 1")
    return value
