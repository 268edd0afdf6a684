"""The policy file of a comparison: YAML, checked key by key, turned into what the judge takes."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moe_serve.analysis.guards import Guard, GuardKind
from moe_serve.analysis.noise import Calibration, Design, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.policy import OnNoGain, Policy, Uncovered
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.windows import BlockingScheme
from moe_serve.config.strict_yaml import first_fault, read
from moe_serve.errors import UsageError
from moe_serve.quality.finding import LEVELS, QualityMode
from moe_serve.sources.declared import ArmsPart, Declared, SourcePart, declared

_ROUNDING = 1e-6
_Share = Annotated[float, Field(gt=0, lt=1)]
# What the exporter tells of a pod (labels of its config_info and build_info), and the model, a
# label that a scrape adds.
Fact = Literal[
    "policy", "path", "quant", "hidden", "intermediate", "padded_hidden", "padded_intermediate",
    "hidden_pad", "intermediate_pad", "worker_config_digest", "version", "vllm", "aiter", "torch",
    "device", "model",
]  # fmt: skip


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
    uncovered: Uncovered = Field(
        Uncovered.NO_GAIN, description="what a promotion takes of busy time that lacks data"
    )
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
    under_test: tuple[Fact, ...] = Field(
        ("policy", "hidden_pad", "intermediate_pad"),
        description="facts in which the arms may differ",
    )


class _Quality(_Part):
    mode: QualityMode = Field(QualityMode.IDENTICAL, description="how the answers are compared")
    epsilon_nats: float = Field(
        0.005, gt=0, le=1, description="a token; sameness is shown below it"
    )
    margin: float = Field(
        0.02, gt=0, lt=1, description="share of a task's items that may be lost (non-inferior)"
    )
    items: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="items of the task (non-inferior); absent: as the probe planned",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="largest chance of a pass at the bound; absent: "
        + ", ".join(f"{mode.value} {level:g}" for mode, level in LEVELS.items()),
    )


class _Latency(_Part):
    margin: float = Field(gt=0, le=1, description="share by which the quantile may rise")
    quantile: float = Field(0.99, ge=0.5, lt=1)


class _Events(_Part):
    margin: float = Field(gt=0, le=1, description="events more that are allowed a request")


class _Guards(_Part):
    ttft: _Latency | None = Field(None, description="time to first token")
    itl: _Latency | None = Field(None, description="time between tokens")
    errors: _Events | None = Field(None, description="requests that vLLM ended with an error")
    preemptions: _Events | None = Field(None, description="of running requests, for want of cache")


class _Weight(_Part):
    batch: int = Field(ge=1)
    share: float = Field(gt=0, le=1)
    layer: int | None = Field(None, ge=0, description="of a kernel; absent for steps")


class _Strata(_Part):
    batches: tuple[Annotated[int, Field(ge=1, strict=True)], ...] = Field(
        min_length=1, description="batch sizes that decide; each must be covered for a promotion"
    )


class _Document(_Part):
    """A comparison's rules, fixed before it starts, and where its samples are."""

    arms: ArmsPart | None = Field(None, description="how samples tell their arm; flags win over it")
    source: SourcePart | None = Field(None, description="where samples are; flags win over it")
    speed: _Speed = _Speed()
    validity: _Validity = _Validity()
    quality: _Quality = _Quality()
    blocks: _Blocks = _Blocks()
    spread: _Spread = _Spread()
    calibration: _Calibration | None = None
    guards: _Guards = _Guards()
    strata: _Strata | None = Field(None, description="absent: every exact batch size decides")
    weights: tuple[_Weight, ...] | None = Field(
        None, min_length=1, description="shares of busy time; absent: the stable arm's own mix"
    )
    design: Design = Field(Design.PARALLEL, description="parallel arms, or a crossover of GPUs")
    deadline_hours: float = Field(12, gt=0, le=24 * 14, description="then a person decides")


def json_schema() -> dict[str, Any]:
    """The policy file's form as JSON Schema, its parts below `$defs`, for other checkers."""
    return _Document.model_json_schema()


def load(path: Path) -> AnalysisPlan:
    """The registration that a policy file states.

    Raises:
        UsageError: it cannot be read, or holds what is not allowed (with the key's path).
    """
    return parse(_read(path), str(path))


def load_declared(path: Path) -> Declared:
    """Arms and source, as far as a policy file states them.

    Raises:
        UsageError: as `load`.
    """
    found = _validated(_read(path), str(path))
    return declared(found.arms, found.source, str(path), path.parent)


def _read(path: Path) -> Any:
    document = read(path, "--policy-file")
    return {} if document is None else document


def _validated(document: Any, name: str) -> _Document:
    try:
        return _Document.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{name}: {first_fault(error, _Document)}") from error


def parse(document: Any, name: str) -> AnalysisPlan:
    """The registration in a document as YAML gives it; `name` is for messages.

    Raises:
        UsageError: as `load`.
    """
    found = _validated(document, name)
    declared(found.arms, found.source, name, Path())
    spread, known = found.spread, found.calibration
    if found.quality.items is not None and found.quality.mode is not QualityMode.NON_INFERIOR:
        raise UsageError(
            f"{name}: quality.items: only a task has items; set quality.mode to non-inferior"
        )
    other = {QualityMode.IDENTICAL: "margin", QualityMode.NON_INFERIOR: "epsilon_nats"}[
        found.quality.mode
    ]
    # Values files are laid over each other: the other mode's default says nothing new.
    if getattr(found.quality, other) != _Quality.model_fields[other].default:
        raise UsageError(
            f"{name}: quality.{other}: mode {found.quality.mode.value} has no such bound; leave it "
            "out, or set the other mode"
        )
    if found.design is Design.CROSSOVER and not spread.start_sd > 0:
        raise UsageError(
            f"{name}: spread.start_sd: a crossover takes out the GPUs' part alone; state how far "
            "process starts lie apart (above 0), from an A/A run with restarts"
        )
    return AnalysisPlan(
        policy=Policy(
            **found.speed.model_dump(),
            max_void_share=found.validity.max_void_share,
            blind_seconds=found.validity.blind_seconds,
            split_evidence=found.validity.split_evidence,
            quality_mode=found.quality.mode,
            quality_epsilon_nats=found.quality.epsilon_nats,
            quality_margin=found.quality.margin,
            quality_items=found.quality.items,
            quality_alpha=found.quality.alpha or LEVELS[found.quality.mode],
        ),
        blocking=_blocking_scheme(found.blocks, name),
        deadline_seconds=found.deadline_hours * 3600,
        design=found.design,
        pod_variation=PodVariation(
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
        guards=tuple(
            Guard(kind=kind, **rule.model_dump())
            for kind in GuardKind
            if (rule := getattr(found.guards, kind.value)) is not None
        ),
        weights=_weights(found, name),
        batches=_batches(found, name),
    )


def _blocking_scheme(blocks: _Blocks, name: str) -> BlockingScheme:
    try:
        return BlockingScheme(
            block_seconds=blocks.seconds,
            window_seconds=blocks.window_seconds,
            min_count=blocks.min_count,
        )
    except UsageError as error:
        raise UsageError(f"{name}: blocks: {error}") from error


def _batches(found: _Document, name: str) -> tuple[int, ...] | None:
    if found.strata is None:
        return None
    if found.weights is not None:
        raise UsageError(
            f"{name}: strata.batches: weights register batch sizes already; give one of both"
        )
    batches = tuple(sorted(set(found.strata.batches)))
    if len(batches) < len(found.strata.batches):
        raise UsageError(f"{name}: strata.batches: a batch size is there twice")
    return batches


def _weights(found: _Document, name: str) -> dict[Cell, float] | None:
    """Registered shares by cell; they must sum to 1, so that a forgotten cell is not overlooked."""
    if found.weights is None:
        return None
    kind = found.speed.primary
    shares = {
        Cell(kind=kind, layer=weight.layer, bucket=weight.batch): weight.share
        for weight in found.weights
    }
    if len(shares) < len(found.weights):
        raise UsageError(f"{name}: weights: a batch size (and layer) is there twice")
    if any((cell.layer is None) is not (kind is CellKind.STEP) for cell in shares):
        raise UsageError(f"{name}: weights: a kernel's weight needs a layer, a step's has none")
    if abs(math.fsum(shares.values()) - 1) > _ROUNDING:
        raise UsageError(
            f"{name}: weights: the shares sum to {math.fsum(shares.values()):g}, not to 1"
        )
    return shares
