"""All that a report shows, gathered before anything is drawn."""

from dataclasses import dataclass

from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.policy import Policy
from moe_serve.analysis.verdict import Judgement
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality, QualityResult
from moe_serve.report.published import Published

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSheet:
    """One arm. `pads` are labelled texts, hidden/neurons of one rank, as `("sent", "192/128")`.

    `bytes_ratio` is fetched weight bytes over the unpadded weights' bytes. None: not
    known.
    """

    name: str
    policy: str
    pads: Facts
    neurons_lost: int | None
    neurons_live: int | None
    bytes_ratio: float | None
    versions: Facts = ()
    environment: Facts = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, in seconds since the chapter began."""

    at_seconds: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """Right answers of both arms to the same `items` questions, each with one right answer.

    `lost` were right on the stable arm alone, `won` on the canary alone; `p_not_worse` is the exact
    probability of losing so many if the canary were no worse.
    """

    task: str
    items: int
    stable: int
    canary: int
    lost: int
    won: int
    p_not_worse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One comparison. `byte_bound` is log(bytes fetched by stable / by canary); `dots` says what a
    dot of the plot over time stands for. `published` ratios are drawn beside the batch sizes.
    """

    title: str
    note: str
    stable: ArmSheet
    canary: ArmSheet
    policy: Policy
    judgement: Judgement
    step: Estimate | NoEstimate
    kernel: Estimate | NoEstimate
    quality: QualityResult | QualityFinding | NoQuality
    dots: str
    byte_bound: float | None = None
    exam: Exam | None = None
    timeline: tuple[Event, ...] = ()
    published: tuple[Published, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSummary:
    """The kernel by itself: bytes it should save and time it does save (ratios, 1 is no change)."""

    label: str
    bytes_ratio: float
    seconds_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """A whole report. `created` is a time stamp as text: this package reads no clock."""

    title: str
    created: str
    chapters: tuple[Chapter, ...]
    note: str = ""
    machine: Facts = ()
    comparison: Facts = ()
    calibration: tuple[CalibrationSummary, ...] = ()
    not_proven: tuple[str, ...] = ()
    seeds: Facts = ()
    commands: tuple[str, ...] = ()
