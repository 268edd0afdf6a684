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
from moe_serve.analysis.observations import crossover_table
from moe_serve.analysis.series import (
    ArmBlock,
    Cell,
    CellKind,
    CellTotal,
    PairedBlock,
    Placement,
    Void,
    paired_block,
)
from moe_serve.analysis.table import BlockTable, Estimand
from moe_serve.errors import UsageError
from tests.testing.samples import TERMS, cells, run

KERNEL, STEP = CellKind.KERNEL, CellKind.STEP
EVEN = dict.fromkeys(cells(KERNEL), 1.0)


def found(
    blocks: tuple[PairedBlock, ...],
    kind: CellKind = KERNEL,
    settings: EstimatorSettings = TERMS,
    estimand: Estimand = Estimand.MIX,
) -> Estimate:
    made = estimate(crossover_table(blocks, kind, 30), kind, settings, estimand=estimand)
    assert isinstance(made, Estimate), made
    return made


def lack(blocks: tuple[PairedBlock, ...], kind: CellKind = KERNEL) -> NoEstimate:
    made = estimate(crossover_table(blocks, kind, 30), kind, TERMS)
    assert isinstance(made, NoEstimate), made
    return made


def scaled(arm: ArmBlock | None, count: int) -> ArmBlock | None:
    if arm is None:
        return None
    return ArmBlock(
        totals={cell: CellTotal(t.count * count, t.seconds) for cell, t in arm.totals.items()}
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.8, 1.3), st.floats(0, 0.1))
def test_swapping_the_arms_negates_theta_and_mirrors_the_ends(
    seed: int, gain: float, noise: float
) -> None:
    settings = replace(TERMS, weights=EVEN, alpha_high=TERMS.alpha_low)
    blocks = run(kernel=gain, noise=noise, seed=seed, void=(3,))
    swapped = tuple(replace(b, stable=b.canary, canary=b.stable) for b in blocks)
    one, other = (
        found(made, settings=settings, estimand=Estimand.EQUAL) for made in (blocks, swapped)
    )
    assert (other.theta, other.lo, other.hi) == (-one.theta, -one.hi, -one.lo)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((2, 4, 8)))
def test_scaling_both_arms_counts_leaves_theta(seed: int, factor: int) -> None:
    blocks = run(kernel=1.1, seed=seed)
    more = tuple(
        replace(block, stable=scaled(block.stable, factor), canary=scaled(block.canary, factor))
        for block in blocks
    )
    assert found(more).theta == pytest.approx(found(blocks).theta, abs=1e-12)


@given(st.floats(0.5, 2.0))
@settings(max_examples=15, deadline=None)
def test_the_cores_own_speed_cancels(core: float) -> None:
    made = found(run(kernel=1.08, noise=0, core=core))
    assert made.theta == pytest.approx(math.log(1.08), abs=1e-12)
    assert made.hi - made.lo == pytest.approx(0, abs=1e-9)


def test_the_truth_lies_between_the_ends() -> None:
    made = found(run(kernel=1.08, noise=0.02, blocks=40))
    assert made.lo < math.log(1.08) < made.hi
    assert made.blocks == 20
    assert made.covered_weight == pytest.approx(1)
    assert made.speedup == math.exp(made.theta)
    assert made.confidence == pytest.approx(1 - TERMS.alpha_low - TERMS.alpha_high)


def test_the_mix_is_what_the_same_work_takes() -> None:
    """Half the time 20 % faster, half unchanged: the whole takes (1 / 1.2 + 1) / 2 of the time."""
    cell = [Cell(kind=STEP, layer=None, bucket=bucket) for bucket in (1, 2)]
    table = BlockTable(
        cells=tuple(cell),
        starts=np.arange(20.0),
        log_ratios=np.tile([math.log(1.2), 0.0], (20, 1)),
        busy=np.array([5.0, 5.0]),
    )
    mix, equal = (estimate(table, STEP, TERMS, estimand=kind) for kind in Estimand)
    assert isinstance(mix, Estimate)
    assert isinstance(equal, Estimate)
    assert mix.speedup == pytest.approx(2 / (1 / 1.2 + 1))
    assert equal.speedup == pytest.approx(math.sqrt(1.2))


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 17), max_size=3), st.integers(0, 100))
def test_void_blocks_never_become_data(void: set[int], seed: int) -> None:
    broken = run(seed=seed, kernel=1.1, void=sorted(void))
    whole = tuple(block for block in run(seed=seed, kernel=1.1) if block.index not in void)
    # Nothing of a void block is used: without it all comes out the same.
    one, other = (crossover_table(blocks, KERNEL, 30) for blocks in (broken, whole))
    assert np.array_equal(one.log_ratios, other.log_ratios)
    assert len(one.starts) <= (18 - len(void)) // 2


def test_blocks_on_the_same_core_are_no_pair() -> None:
    blocks = tuple(replace(block, placement=Placement.AB) for block in run())
    assert "no block in which both arms ran" in lack(blocks).reason


@pytest.mark.parametrize("blocks", [0, 1, 10, 11])
def test_there_is_no_estimate_before_the_first_look(blocks: int) -> None:
    assert lack(run(blocks=blocks), STEP).blocks < TERMS.interim_analyses.first


def test_there_is_one_at_the_first_look() -> None:
    assert found(run(blocks=12)).blocks == TERMS.interim_analyses.first == 6


def test_nothing_is_looked_at_after_the_deadline() -> None:
    late = replace(TERMS, weights=EVEN, interim_analyses=InterimAnalyses(first=6, last=8))
    assert found(run(blocks=40), settings=late).theta == found(run(blocks=16), settings=late).theta


def test_rare_cells_are_not_covered_and_are_named() -> None:
    rare = Cell(kind=STEP, layer=None, bucket=8)

    def thinned(arm: ArmBlock | None) -> ArmBlock:
        assert arm is not None
        totals = dict(arm.totals)
        totals[rare] = CellTotal(3, totals[rare].seconds)
        return ArmBlock(totals=totals)

    made = found(
        tuple(replace(b, stable=thinned(b.stable), canary=thinned(b.canary)) for b in run(noise=0)),
        STEP,
    )
    assert [lost.cell for lost in made.uncovered] == [rare]
    assert made.covered_weight == pytest.approx(1 - made.uncovered[0].weight)
    assert made.covered_weight < 0.6
    assert [entry.cell.bucket for entry in made.cells] == [2, 4]


def test_weights_are_the_stable_arms_busy_seconds() -> None:
    made = found(run(noise=0, core=1.0), STEP)
    # Seconds grow as 1 + batch / 8 at equal counts: 1.25, 1.5 and 2.
    weights = [entry.weight for entry in made.cells]
    assert weights == pytest.approx([1.25 / 4.75, 1.5 / 4.75, 2 / 4.75])


def test_kernel_cells_are_pooled_over_layers() -> None:
    made = found(run(kernel=1.1))
    assert [(entry.cell.layer, entry.cell.bucket) for entry in made.buckets] == [
        (None, 2),
        (None, 4),
        (None, 8),
    ]
    assert math.fsum(entry.weight for entry in made.buckets) == pytest.approx(1)


def test_the_last_running_ends_are_the_estimates() -> None:
    made = found(run(kernel=1.1))
    last = made.series[-1]
    assert (last.running_theta, last.running_lo, last.running_hi) == (made.theta, made.lo, made.hi)
    assert all(
        point.running_lo is None for point in made.series[: TERMS.interim_analyses.first - 1]
    )


def test_a_void_arm_has_no_data_at_all() -> None:
    blocks = tuple(
        paired_block(
            index=n,
            start_seconds=n,
            placement=tuple(Placement)[n % 2],
            stable=Void("dead"),
            canary=Void("dead"),
        )
        for n in range(20)
    )
    assert lack(blocks).reason == "no block in which both arms ran, so no kernel rate"


def test_more_spread_between_pods_widens_and_more_pods_narrow() -> None:
    blocks = run(kernel=1.08, blocks=24)

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
    blocks = run(kernel=1.08, blocks=24, noise=0.001)
    loud = Calibration(block_seconds=600, block_variance=0.02**2, blocks=144, autocorrelation=0.0)
    made = found(blocks, settings=replace(TERMS, calibration=loud))
    assert made.block_sd == pytest.approx(0.02 * math.sqrt(1.1))
    assert made.in_run_sd < 0.01


@pytest.mark.parametrize(
    "options",
    [
        {"looks": InterimAnalyses(first=6, last=5)},
        {"stable_pods": 0},
        {"alpha_low": 0.6},
    ],
)
def test_terms_that_cannot_decide_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(TERMS, **options)  # type: ignore[arg-type]
