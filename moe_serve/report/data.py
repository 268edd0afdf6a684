"""The content of a report, gathered before anything is drawn."""

from dataclasses import dataclass

from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.policy import Policy
from moe_serve.analysis.verdict import Judgement
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality
from moe_serve.report.published import Published

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSheet:
    """One arm as its pods describe it; None stands for a figure that no pod exports.

    `pads` are labelled texts, hidden/intermediate elements of one rank, as `("sent", "192/128")`.
    `bytes_ratio` is the bytes that the timed MoE calls fetch over those that the live sizes need.
    """

    name: str
    policy: str
    pads: Facts
    neurons_lost: int | None
    neurons_live: int | None
    bytes_ratio: float | None
    facts: Facts = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One comparison.

    `byte_bound` is log(bytes fetched by stable / by canary). `dots` says what one dot of the plot
    over time stands for. `circumstances` are the source, the design, the pods and what was
    excluded. `published` ratios are drawn beside the batch sizes.
    """

    title: str
    note: str
    stable: ArmSheet
    canary: ArmSheet
    policy: Policy
    judgement: Judgement
    step: Estimate | NoEstimate
    kernel: Estimate | NoEstimate
    quality: QualityFinding | NoQuality
    dots: str
    byte_bound: float | None = None
    circumstances: Facts = ()
    published: tuple[Published, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSummary:
    """The MoE kernel alone: stable's bytes over the canary's, and stable's time over the canary's.

    Both are ratios; 1 is no change.
    """

    label: str
    bytes_ratio: float
    seconds_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """A whole report. `created` is a time stamp as text, so that equal data give equal pages."""

    title: str
    created: str
    chapters: tuple[Chapter, ...]
    note: str = ""
    machine: Facts = ()
    calibration: tuple[CalibrationSummary, ...] = ()
    not_proven: tuple[str, ...] = ()
    seeds: Facts = ()
    commands: tuple[str, ...] = ()
