"""The file of a comparison of answers: what `quality probe --output json` writes, and no less.

The file may promote a canary, so nothing in it is taken on trust that it can be asked to show.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moe_serve.config.strict_json import read as read_json
from moe_serve.config.strict_yaml import first_fault
from moe_serve.errors import UsageError
from moe_serve.quality.finding import QualityFinding, QualityMode, finding
from moe_serve.quality.result import NoQuality, QualityOutcome


class _Part(BaseModel):
    # Strict: `true` is no number. Enums come as the text that they are in JSON.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class _Arm(_Part):
    url: str = Field(min_length=1)
    model: str = Field(min_length=1)
    exporter: str | None
    facts: dict[str, str] | None


class _Arms(_Part):
    stable: _Arm
    canary: _Arm


class _Reference(_Part):
    source: str
    digest: str
    model: str | None = None


class _Traffic(_Part):
    exporter: str
    batch: int = Field(ge=1)
    busy_share: float = Field(gt=0, le=1)


class _Cell(_Part):
    path: str
    concurrency: int = Field(ge=1)
    prompts: int = Field(ge=0)
    tokens: int = Field(ge=0)
    asked: int = Field(ge=0)
    answered: int = Field(ge=0)
    excess_nats: float | None
    lower: float | None
    upper: float | None
    floor_nats: float | None
    top1_drop: float | None
    not_finite: list[str]
    not_finite_stable: list[str]
    missing: list[str]


class _Paired(_Part):
    items: int = Field(ge=1)
    baseline: float = Field(ge=0, le=1)
    arm: float = Field(ge=0, le=1)
    lost: int = Field(ge=0)
    won: int = Field(ge=0)
    lower: float
    upper: float
    p_not_worse: float = Field(ge=0, le=1)


class _Document(_Part):
    """A comparison's answer; the later parts belong to one mode each."""

    at: float = Field(gt=0, description="when it ended, seconds since the epoch")
    arms: _Arms
    mode: QualityMode = Field(strict=False)
    outcome: QualityOutcome = Field(strict=False)
    reason: str
    at_any_bound: bool = Field(False, description="whether it fails for what no bound allows")
    number: float | None
    allowed: float = Field(gt=0)
    reference: _Reference
    traffic: _Traffic | None = Field(description="the batch size found under traffic, if asked")
    seconds: float = Field(ge=0)
    counters: dict[str, Any]
    requests_an_arm: int | None = Field(None, ge=0)
    rounds: int | None = Field(None, ge=1)
    budget: dict[str, Any] | None = None
    cells: list[_Cell] | None = Field(None, min_length=1)
    task: str | None = None
    planned_items: int | None = Field(None, ge=1)
    alpha: float | None = Field(None, gt=0, lt=0.5)
    power: float | None = Field(None, ge=0, le=1)
    canary: _Paired | None = None
    stable: _Paired | None = None
    known_bad: _Paired | None = None


def read(path: Path) -> QualityFinding | NoQuality:
    """The finding in a file; none where there is no file yet.

    Raises:
        UsageError: it is not what the probe writes, or claims more than it shows.
    """
    name = f"--quality {path}"
    try:
        body = read_json(path, "--quality")
    except FileNotFoundError:
        return NoQuality(reason=f"there is no comparison of answers yet ({path})")
    try:
        told = _Document.model_validate(body)
    except ValidationError as error:
        raise UsageError(
            f"{name}: not what `quality probe --output json` writes: "
            f"{first_fault(error, _Document)}"
        ) from error
    if told.outcome is QualityOutcome.PASSED and (fault := _unshown(told)):
        raise UsageError(f"{name}: says passed, and {fault}; probe again")
    try:
        return finding(body)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _unshown(told: _Document) -> str | None:
    """What a pass claims and its own figures do not show."""
    if told.mode is QualityMode.IDENTICAL:
        uppers = [cell.upper for cell in told.cells or ()]
        known = [upper for upper in uppers if upper is not None]
        if not known or len(known) < len(uppers):
            return "not every cell has an upper bound"
        return None if max(known) == told.number else "number is not its cells' highest bound"
    if told.canary is None or told.canary.items != told.planned_items:
        return "not all planned items were answered"
    return None if -told.canary.lower == told.number else "number is not the canary's lower bound"
