"""Synthetic runs whose truth is known: a table of blocks, and a whole report."""

import math
from dataclasses import replace

import numpy as np

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.history import History
from moe_serve.analysis.noise import Design, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import BlockTable
from moe_serve.quality.finding import QualityFinding, finding
from moe_serve.quality.result import NoQuality, QualityOutcome
from moe_serve.report.comparison import chapter
from moe_serve.report.data import CalibrationSummary, Chapter, ReportData
from moe_serve.sources.assemble import ArmSelector, assemble
from tests.testing.histories import START, Fleet, streams
from tests.testing.probed import probed

TERMS = EstimatorSettings(
    interim_analyses=InterimAnalyses(first=6, last=24),
    pod_variation=PodVariation(),
    design=Design.CROSSOVER,
)
BUCKETS = (2, 4, 8)
HOURS = 3.0
PLAN = AnalysisPlan(
    pod_variation=PodVariation(),
    under_test=("policy", "hidden_pad", "intermediate_pad"),
    deadline_seconds=HOURS * 3600,
)


def table(
    kind: CellKind, gain: float, *, blocks: int = 18, noise: float = 0.01, seed: int = 0
) -> BlockTable:
    """Blocks of steps, or of two layers' kernels; `gain` is a ratio of rates, `noise` a log SD."""
    source = np.random.default_rng(seed)
    layers = (0, 1) if kind is CellKind.KERNEL else (None,)
    cells = tuple(Cell(kind=kind, layer=layer, bucket=b) for layer in layers for b in BUCKETS)
    return BlockTable(
        cells=cells,
        starts=100 + 10.0 * np.arange(blocks),
        log_ratios=math.log(gain) + noise * source.standard_normal((blocks, len(cells))),
        busy=np.array([1 + cell.bucket / 8 for cell in cells]),
    )


def estimates(
    *, step: float, kernel: float, blocks: int = 18, noise: float = 0.01, seed: int = 0
) -> tuple[Estimate | NoEstimate, Estimate | NoEstimate]:
    """The estimates of both rates, from tables with these gains."""
    made = [
        estimate(table(kind, gain, blocks=blocks, noise=noise, seed=seed + number), kind, TERMS)
        for number, (kind, gain) in enumerate(((CellKind.STEP, step), (CellKind.KERNEL, kernel)))
    ]
    return made[0], made[1]


def history(fleet: Fleet) -> History:
    """A fleet's history, as a source gives it."""
    return assemble(streams(fleet), ArmSelector(), START, START + HOURS * 3600, "memory")


def compared(
    title: str, fleet: Fleet, quality: QualityFinding | NoQuality
) -> tuple[Chapter, Findings]:
    """The report's chapter of a fleet, and the findings behind it."""
    seen = history(replace(fleet, hours=HOURS, interval=30))
    found = examine(seen, PLAN, quality)
    return replace(chapter(seen, found), title=title), found


def report() -> ReportData:
    """Three comparisons: one to promote, one with other answers, one without a gain."""
    same, other = (finding(probed(o)) for o in (QualityOutcome.PASSED, QualityOutcome.FAILED))
    bytes_ratios = (1.138, 1.013)
    return ReportData(
        title="Padding canaries on simulated workers",
        created="2026-11-24 03:30 UTC",
        note="Simulated counters.",
        chapters=(
            compared("Lossless pads", Fleet(bytes_ratios=bytes_ratios), same)[0],
            compared(
                "Lossy pads",
                Fleet(gain=1.13, lost_neurons=(0, 192), bytes_ratios=(1.138, 0.95), seed=5),
                other,
            )[0],
            compared("No change", Fleet(gain=1.0, seed=9), NoQuality(reason="no probe ran"))[0],
        ),
        machine=(("processor", "2 cores"), ("memory", "24 GiB"), ("Python", "3.11.7")),
        calibration=(
            CalibrationSummary(label="aligned", bytes_ratio=1.123, seconds_ratio=1.131),
            CalibrationSummary(label="upstream", bytes_ratio=1.198, seconds_ratio=1.21),
        ),
        not_proven=("AMD hardware: no GPU took part.", "Hours that nobody measured."),
        seeds=(("prompts", "7"), ("weights", "1234")),
        commands=("make demo", "moe-serve canary report --history run.txt"),
    )
