"""The policy file of a comparison: YAML, checked key by key, turned into what the judge takes."""

import math
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moe_serve.canary.analysis.comparison import Registration
from moe_serve.canary.analysis.noise import Calibration, Design, Spread
from moe_serve.canary.analysis.policy import OnNoGain, Policy
from moe_serve.canary.analysis.series import CellKind
from moe_serve.canary.analysis.windows import Cut
from moe_serve.canary.quality.finding import Mode
from moe_serve.errors import UsageError

_Share = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Blocks(_Part):
    seconds: float = Field(600, ge=10, le=7200, description="length of a block")
    window_seconds: float = Field(
        60, ge=5, le=600, description="windows in which the arms are paired; at least two scrapes"
    )
    min_count: int = Field(
        200, ge=1, description="runs of a cell that each arm needs in a block for it to count"
    )


class _Spread(_Part):
    gpu_sd: float = Field(0.015, ge=0, lt=1, description="log SD between GPUs of equal software")
    gpu_freedom: float | None = Field(
        None, ge=1, description="degrees of freedom of gpu_sd; absent: declared, not estimated"
    )
    start_sd: float = Field(0.0, ge=0, lt=1, description="log SD between process starts on one GPU")
    start_freedom: float | None = Field(
        None, ge=1, description="degrees of freedom of start_sd; absent: declared"
    )


class _Calibration(_Part):
    block_variance: float = Field(gt=0, description="long-run variance of a block's log ratio")
    blocks: int = Field(ge=24, description="blocks of the A/A run")
    autocorrelation: float = Field(ge=0, lt=1, description="of neighbouring blocks")


class _Speed(_Part):
    primary: CellKind = Field(CellKind.STEP, description="the rate that decides")
    margin: float = Field(
        0.03, ge=0, lt=1, description="gain that must be exceeded, as a ratio - 1"
    )
    harm: float = Field(0.01, ge=0, lt=1, description="proven loss that rolls back")
    on_no_gain: OnNoGain = Field(OnNoGain.ROLLBACK, description="when the gain is below the margin")
    alpha_promote: float = Field(
        0.05, gt=0, lt=0.5, description="chance of a promotion at the margin"
    )
    alpha_rollback: float = Field(0.02, gt=0, lt=0.5, description="chance of a rollback above it")
    min_covered_weight: float = Field(0.8, gt=0, le=1, description="share of busy time spoken for")
    cell_weight: float = Field(0.05, gt=0, le=1, description="cells below it cannot forbid")
    cell_harm: float = Field(0.03, ge=0, lt=1, description="proven loss of one cell that forbids")


class _Validity(_Part):
    max_void_share: float = Field(0.2, ge=0, lt=1, description="of an arm's windows")
    blind_seconds: float = Field(900, gt=0, description="age of an arm's last data")
    canary_share: _Share | None = Field(
        None, description="the canary's part of both arms' requests; absent: not checked"
    )
    split_evidence: float = Field(
        1000, gt=1, description="how much better another split must explain the requests"
    )
    under_test: tuple[str, ...] = Field(
        ("policy", "hidden_pad", "intermediate_pad", "config_digest"),
        description="facts in which the arms may differ",
    )


class _Quality(_Part):
    mode: Mode = Field(Mode.IDENTICAL, description="how the answers are compared")
    epsilon_nats: float = Field(
        0.005, gt=0, le=1, description="a token; sameness is shown below it"
    )
    margin: float = Field(
        0.02, gt=0, lt=1, description="share of a task's items that may be lost (non-inferior)"
    )


class _Document(_Part):
    """A comparison's rules, fixed before it starts."""

    speed: _Speed = _Speed()
    validity: _Validity = _Validity()
    quality: _Quality = _Quality()
    blocks: _Blocks = _Blocks()
    spread: _Spread = _Spread()
    calibration: _Calibration | None = None
    design: Design = Field(Design.PARALLEL, description="parallel arms, or a crossover of GPUs")
    deadline_hours: float = Field(12, gt=0, le=24 * 14, description="then a person decides")


def load(path: Path) -> Registration:
    """The registration that a policy file states.

    Raises:
        UsageError: it cannot be read, or holds what is not allowed (with the key's path).
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--policy {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"--policy {path}: not YAML: {text}") from error
    return parse({} if document is None else document, str(path))


def parse(document: Any, name: str) -> Registration:
    """The registration in a document as YAML gives it; `name` is for messages.

    Raises:
        UsageError: as `load`.
    """
    try:
        found = _Document.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{name}: {_first(error)}") from error
    spread, known = found.spread, found.calibration
    return Registration(
        policy=Policy(
            **found.speed.model_dump(),
            max_void_share=found.validity.max_void_share,
            blind_seconds=found.validity.blind_seconds,
            split_evidence=found.validity.split_evidence,
            quality_mode=found.quality.mode,
            quality_epsilon_nats=found.quality.epsilon_nats,
            quality_margin=found.quality.margin,
        ),
        cut=Cut(
            block_seconds=found.blocks.seconds,
            window_seconds=found.blocks.window_seconds,
            min_count=found.blocks.min_count,
        ),
        deadline_seconds=found.deadline_hours * 3600,
        design=found.design,
        spread=Spread(
            gpu_sd=spread.gpu_sd,
            gpu_freedom=spread.gpu_freedom or math.inf,
            start_sd=spread.start_sd,
            start_freedom=spread.start_freedom or math.inf,
        ),
        calibration=Calibration(
            block_seconds=found.blocks.seconds,
            block_variance=known.block_variance,
            blocks=known.blocks,
            autocorrelation=known.autocorrelation,
        )
        if known
        else None,
        under_test=found.validity.under_test,
        canary_share=found.validity.canary_share,
    )


def _first(error: ValidationError) -> str:
    """One line: the key's path, what is wrong, and how many more there are."""
    faults = error.errors()
    place = ".".join(map(str, faults[0]["loc"])) or "document"
    text = faults[0]["msg"]
    if faults[0]["type"] == "extra_forbidden":
        text = f"unknown key; known here: {', '.join(_known(faults[0]['loc'][:-1]))}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place}: {text}{more}"


def _known(place: tuple[Any, ...]) -> list[str]:
    part: Any = _Document
    for key in place:
        annotation = part.model_fields[key].annotation
        options = getattr(annotation, "__args__", (annotation,))
        part = next(option for option in options if hasattr(option, "model_fields"))
    return list(part.model_fields)
