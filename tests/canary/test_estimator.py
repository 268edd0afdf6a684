import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.canary.analysis.estimate import Estimate, NoEstimate
from moe_serve.canary.analysis.estimator import estimate
from moe_serve.canary.analysis.interval import mean_interval
from moe_serve.canary.analysis.series import (
    ArmBlock,
    Cell,
    CellKind,
    CellTotal,
    PairedBlock,
    Placement,
    Void,
    paired_block,
)
from moe_serve.errors import UsageError
from tests.canary.samples import cells, run

KERNEL, STEP = CellKind.KERNEL, CellKind.STEP
EVEN = dict.fromkeys(cells(KERNEL), 1.0)


def found(blocks: Sequence[PairedBlock], kind: CellKind = KERNEL, **options: object) -> Estimate:
    made = estimate(blocks, kind, **options)  # type: ignore[arg-type]
    assert isinstance(made, Estimate), made
    return made


def swapped(block: PairedBlock) -> PairedBlock:
    return replace(block, stable=block.canary, canary=block.stable)


def scaled(arm: ArmBlock | None, count: int) -> ArmBlock | None:
    if arm is None:
        return None
    return ArmBlock(
        totals={cell: CellTotal(t.count * count, t.seconds) for cell, t in arm.totals.items()}
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.8, 1.3), st.floats(0, 0.1))
def test_swapping_the_arms_negates_theta_and_mirrors_the_interval(
    seed: int, gain: float, noise: float
) -> None:
    blocks = run(kernel=gain, noise=noise, seed=seed, void=(3,))
    one = found(blocks, weights=EVEN)
    other = found([swapped(block) for block in blocks], weights=EVEN)
    assert (other.theta, other.lo, other.hi) == (-one.theta, -one.hi, -one.lo)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((2, 4, 8)))
def test_scaling_both_arms_counts_leaves_theta(seed: int, factor: int) -> None:
    blocks = run(kernel=1.1, seed=seed)
    more = [
        replace(block, stable=scaled(block.stable, factor), canary=scaled(block.canary, factor))
        for block in blocks
    ]
    assert found(more).theta == pytest.approx(found(blocks).theta, abs=1e-12)


@given(st.floats(0.5, 2.0))
@settings(max_examples=15, deadline=None)
def test_the_cores_own_speed_cancels(core: float) -> None:
    made = found(run(kernel=1.08, noise=0, core=core))
    assert made.theta == pytest.approx(math.log(1.08), abs=1e-12)
    assert made.hi - made.lo == pytest.approx(0, abs=1e-9)


def test_the_truth_lies_in_the_interval() -> None:
    made = found(run(kernel=1.08, noise=0.02, blocks=40))
    assert made.lo < math.log(1.08) < made.hi
    assert made.pairs == 20
    assert made.covered_weight == pytest.approx(1)
    assert made.speedup == math.exp(made.theta)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 17), max_size=5), st.integers(0, 100))
def test_void_blocks_never_become_data(void: set[int], seed: int) -> None:
    broken = run(seed=seed, kernel=1.1, void=sorted(void))
    whole = [block for block in run(seed=seed, kernel=1.1) if block.index not in void]
    made, left = estimate(broken, KERNEL), estimate(whole, KERNEL)
    # Nothing of a void block is used: without it all comes out the same.
    assert made.pairs == left.pairs <= (18 - len(void)) // 2
    assert made == left or isinstance(made, NoEstimate) is isinstance(left, NoEstimate) is True


def test_blocks_on_the_same_core_are_no_pair() -> None:
    blocks = [replace(block, placement=Placement.AB) for block in run()]
    made = estimate(blocks, KERNEL)
    assert isinstance(made, NoEstimate)
    assert "0 crossover pairs" in made.reason


@pytest.mark.parametrize("blocks", [0, 1, 6, 7])
def test_fewer_than_four_pairs_are_no_estimate(blocks: int) -> None:
    assert isinstance(estimate(run(blocks=blocks), STEP), NoEstimate)


def test_four_pairs_are_an_estimate() -> None:
    assert found(run(blocks=8)).pairs == 4


def test_rare_cells_are_not_covered_and_are_named() -> None:
    rare = Cell(kind=STEP, layer=None, bucket=8)

    def thinned(arm: ArmBlock | None) -> ArmBlock:
        assert arm is not None
        totals = dict(arm.totals)
        totals[rare] = CellTotal(3, totals[rare].seconds)
        return ArmBlock(totals=totals)

    blocks = [replace(b, stable=thinned(b.stable), canary=thinned(b.canary)) for b in run(noise=0)]
    made = found(blocks, STEP)
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


def test_the_last_running_interval_is_the_estimate() -> None:
    made = found(run(kernel=1.1))
    last = made.series[-1]
    assert (last.running_theta, last.running_lo, last.running_hi) == (made.theta, made.lo, made.hi)
    assert all(point.running_lo is None for point in made.series[:3])


def test_a_void_arm_has_no_data_at_all() -> None:
    blocks = [
        paired_block(
            index=n,
            start_seconds=n,
            placement=tuple(Placement)[n % 2],
            stable=Void("dead"),
            canary=Void("dead"),
        )
        for n in range(20)
    ]
    made = estimate(blocks, KERNEL)
    assert made == NoEstimate(
        kind=KERNEL,
        pairs=0,
        reason="0 crossover pairs of blocks, at least 4 are needed (20 blocks, 20 void)",
    )


@pytest.mark.parametrize(
    "options",
    [{"confidence": 1.0}, {"min_pairs": 2}, {"weights": {}}, {"weights": dict.fromkeys(EVEN, 0.0)}],
)
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        estimate(run(), KERNEL, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("phi", "least"), [(0.0, 0.95), (0.3, 0.90), (0.5, 0.85)])
def test_the_interval_covers_the_truth_under_autocorrelation(phi: float, least: float) -> None:
    source = np.random.default_rng(20)
    runs, length, warm = 600, 9, 30
    shocks = source.standard_normal((runs, warm + length))
    series = np.zeros_like(shocks)
    for at in range(1, warm + length):
        series[:, at] = phi * series[:, at - 1] + shocks[:, at]
    intervals = [mean_interval(list(row[warm:]), 0.95) for row in series]
    covered = sum(made.lo <= 0 <= made.hi for made in intervals) / runs
    assert covered >= least
