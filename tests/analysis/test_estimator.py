"""The estimate from tables whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.noise import Calibration, Design, PodVariation
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import BlockTable, Estimand
from moe_serve.errors import UsageError
from tests.testing.samples import TERMS, table

KERNEL, STEP = CellKind.KERNEL, CellKind.STEP
EVEN = dict.fromkeys(table(KERNEL, 1.0).cells, 1.0)


def found(
    blocks: BlockTable,
    kind: CellKind = KERNEL,
    settings: EstimatorSettings = TERMS,
    estimand: Estimand = Estimand.MIX,
) -> Estimate:
    made = estimate(blocks, kind, settings, estimand=estimand)
    assert isinstance(made, Estimate), made
    return made


def lack(blocks: BlockTable, kind: CellKind = KERNEL) -> NoEstimate:
    made = estimate(blocks, kind, TERMS)
    assert isinstance(made, NoEstimate), made
    return made


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.8, 1.3), st.floats(0, 0.1))
def test_swapped_arms_negate_theta_and_mirror_the_ends(
    seed: int, gain: float, noise: float
) -> None:
    settings = replace(TERMS, weights=EVEN, alpha_high=TERMS.alpha_low)
    blocks = table(KERNEL, gain, noise=noise, seed=seed)
    swapped = replace(blocks, log_ratios=-blocks.log_ratios)
    one, other = (
        found(made, settings=settings, estimand=Estimand.EQUAL) for made in (blocks, swapped)
    )
    assert (other.theta, other.lo, other.hi) == (-one.theta, -one.hi, -one.lo)


def test_the_truth_lies_between_the_ends() -> None:
    made = found(table(KERNEL, 1.08, noise=0.02, blocks=20))
    assert made.lo < math.log(1.08) < made.hi
    assert made.blocks == 20
    assert made.covered_weight == pytest.approx(1)
    assert made.speedup == math.exp(made.theta)
    assert made.confidence == pytest.approx(1 - TERMS.alpha_low - TERMS.alpha_high)


def test_the_mix_is_what_the_same_work_takes() -> None:
    """Half the time 20 % faster, half unchanged: the whole takes (1 / 1.2 + 1) / 2 of the time."""
    cell = [Cell(kind=STEP, layer=None, bucket=bucket) for bucket in (1, 2)]
    blocks = BlockTable(
        cells=tuple(cell),
        starts=np.arange(20.0),
        log_ratios=np.tile([math.log(1.2), 0.0], (20, 1)),
        busy=np.array([5.0, 5.0]),
    )
    mix, equal = (estimate(blocks, STEP, TERMS, estimand=kind) for kind in Estimand)
    assert isinstance(mix, Estimate)
    assert isinstance(equal, Estimate)
    assert mix.speedup == pytest.approx(2 / (1 / 1.2 + 1))
    assert equal.speedup == pytest.approx(math.sqrt(1.2))


@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_before_the_first_analysis_there_is_no_estimate(blocks: int) -> None:
    assert lack(table(STEP, 1.0, blocks=blocks), STEP).blocks < TERMS.interim_analyses.first


def test_a_table_without_blocks_says_why_there_is_no_estimate() -> None:
    reason = lack(table(KERNEL, 1.0, blocks=0)).reason
    assert reason == "no block in which both arms ran, so no kernel rate"


def test_at_the_first_analysis_there_is_an_estimate() -> None:
    assert found(table(KERNEL, 1.0, blocks=6)).blocks == TERMS.interim_analyses.first == 6


def test_blocks_after_the_deadline_change_nothing() -> None:
    late = replace(TERMS, weights=EVEN, interim_analyses=InterimAnalyses(first=6, last=8))
    long, short = (table(KERNEL, 1.0, blocks=20), table(KERNEL, 1.0, blocks=20))
    short = replace(short, starts=short.starts[:8], log_ratios=short.log_ratios[:8])
    assert found(long, settings=late).theta == found(short, settings=late).theta


def test_rare_cells_are_not_covered_and_are_named() -> None:
    blocks = table(STEP, 1.0, noise=0)
    blocks.log_ratios[2:, 2] = math.nan
    made = found(blocks, STEP)
    assert [lost.cell for lost in made.uncovered] == [blocks.cells[2]]
    assert made.covered_weight == pytest.approx(1 - made.uncovered[0].weight)
    assert made.covered_weight < 0.6
    assert [entry.cell.bucket for entry in made.cells] == [2, 4]


def test_weights_are_the_stable_arms_busy_seconds() -> None:
    weights = [entry.weight for entry in found(table(STEP, 1.0, noise=0), STEP).cells]
    assert weights == pytest.approx([1.25 / 4.75, 1.5 / 4.75, 2 / 4.75])


def test_kernel_cells_are_pooled_over_layers() -> None:
    made = found(table(KERNEL, 1.1))
    assert [(entry.cell.layer, entry.cell.bucket) for entry in made.buckets] == [
        (None, 2),
        (None, 4),
        (None, 8),
    ]
    assert math.fsum(entry.weight for entry in made.buckets) == pytest.approx(1)


def test_the_last_running_ends_are_the_estimates() -> None:
    made = found(table(KERNEL, 1.1))
    last = made.series[-1]
    assert (last.running_theta, last.running_lo, last.running_hi) == (made.theta, made.lo, made.hi)
    assert all(
        point.running_lo is None for point in made.series[: TERMS.interim_analyses.first - 1]
    )


def test_more_spread_between_pods_widens_and_more_pods_narrow() -> None:
    blocks = table(KERNEL, 1.08, blocks=12)

    def width(settings: EstimatorSettings) -> float:
        made = found(blocks, settings=replace(settings, design=Design.PARALLEL))
        return made.hi - made.lo

    plain = width(TERMS)
    pod_variation = replace(TERMS, pod_variation=PodVariation(gpu_sd=0.015, gpu_freedom=6))
    assert width(pod_variation) > plain
    assert width(replace(pod_variation, stable_pods=4, canary_pods=4)) < width(pod_variation)
    known = replace(pod_variation, pod_variation=PodVariation(gpu_sd=0.015))
    assert width(known) < width(pod_variation)


def test_a_crossover_removes_the_gpus_share_and_keeps_the_starts() -> None:
    pod_variation = PodVariation(gpu_sd=0.02, gpu_freedom=6, start_sd=0.005, start_freedom=3)
    assert pod_variation.offset(Design.CROSSOVER, 2, 2) == pytest.approx((0.005**2, 3))
    variance, freedom = pod_variation.offset(Design.PARALLEL, 2, 2)
    assert variance == pytest.approx(0.02**2 + 0.005**2)
    assert 6 < freedom < 7


def test_a_run_that_is_quieter_than_its_calibration_takes_the_calibrations_noise() -> None:
    blocks = table(KERNEL, 1.08, blocks=12, noise=0.001)
    loud = Calibration(block_seconds=600, block_variance=0.02**2, blocks=144, autocorrelation=0.0)
    made = found(blocks, settings=replace(TERMS, calibration=loud))
    assert made.block_sd == pytest.approx(0.02 * math.sqrt(1.1))
    assert made.in_run_sd < 0.01


@pytest.mark.parametrize(
    "options",
    [
        {"interim_analyses": InterimAnalyses(first=6, last=5)},
        {"stable_pods": 0},
        {"alpha_low": 0.6},
    ],
)
def test_terms_that_cannot_decide_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(TERMS, **options)  # type: ignore[arg-type]
