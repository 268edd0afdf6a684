"""Benchmark runs whose truth is known."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from moe_serve.benchmark.results import BenchmarkArm, BenchmarkCell, BenchmarkRun, Latencies, Shape
from moe_serve.quality.finding import QualityFinding, finding
from moe_serve.quality.result import QualityOutcome
from tests.testing.probed import probed

SHAPES = (
    Shape(input_tokens=1024, output_tokens=1024),
    Shape(input_tokens=8192, output_tokens=1024),
)
CELLS = tuple(
    BenchmarkCell(shape=shape, concurrency=conc) for shape in SHAPES for conc in (4, 16, 64)
)


def quality(outcome: QualityOutcome) -> QualityFinding:
    found = finding(probed(outcome))
    assert isinstance(found, QualityFinding)
    return found


SAME, OTHER = quality(QualityOutcome.PASSED), quality(QualityOutcome.FAILED)


def pairs(
    gain: float | Mapping[BenchmarkCell, float] = 1.08,
    *,
    count: int = 5,
    noise: float = 0.01,
    slower: float = 1.0,
    seed: int = 0,
) -> list[BenchmarkRun]:
    """`count` interleaved pairs; `noise` is a run's log SD, `slower` the canary's latency ratio."""
    source, found = random.Random(seed), list[BenchmarkRun]()
    for pair in range(1, count + 1):
        arms = list(BenchmarkArm) if pair % 2 else list(reversed(BenchmarkArm))
        for (at, arm), cell in product(enumerate(arms), CELLS):
            ratio = gain if isinstance(gain, float) else gain.get(cell, 1.08)
            canary = arm is BenchmarkArm.CANARY
            latency = source.lognormvariate(0, noise) * (slower if canary else 1.0)
            found.append(
                BenchmarkRun(
                    arm=arm,
                    cell=cell,
                    pair=pair,
                    tput_per_gpu=100 * cell.concurrency * (ratio if canary else 1.0)
                    * source.lognormvariate(0, noise),
                    latencies=Latencies(ttft_p99=latency, itl_p99=latency / 10),
                    failed=0,
                    output_tokens=1000,
                    source=f"{arm}-{pair}",
                    planned_pairs=count,
                    started=1000.0 * pair + 100 * at,
                    client_busy=0.2,
                )
            )  # fmt: skip
    return found


def changed(runs: list[BenchmarkRun], arm: BenchmarkArm, **values: object) -> list[BenchmarkRun]:
    """The runs with some of an arm's first one's values replaced."""
    at = next(at for at, run in enumerate(runs) if run.arm is arm)
    return [*runs[:at], replace(runs[at], **values), *runs[at + 1 :]]  # type: ignore[arg-type]
