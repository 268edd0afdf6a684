"""From scrapes to blocks: what grew counts, what cannot be known is void and is named."""

import math

import numpy as np
import pytest

from moe_serve.analysis.history import ArmHistory, History, PodSeries
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import BlockTable, block_table
from moe_serve.analysis.windows import BlockingScheme, WindowCoverage, paired_windows
from moe_serve.errors import UsageError

CELLS = tuple(Cell(kind=CellKind.STEP, layer=None, bucket=bucket) for bucket in (4, 8))
BLOCKING = BlockingScheme(block_seconds=600, window_seconds=60, min_count=50)
INTERVAL = 15.0


def pod(name: str, rate: float, *, hours: float = 1.0, phase: float = 0.0) -> PodSeries:
    """A pod that runs both cells for half of its time each; `rate` in steps a busy second."""
    times = np.arange(phase, hours * 3600 + 1, INTERVAL)
    busy = np.column_stack([times / 2, times / 2])
    return PodSeries(
        pod=name,
        times=times,
        counter_generation=np.ones(len(times)),
        counts=busy * np.array([rate, 2 * rate]),
        busy=busy,
    )


def history(stable: PodSeries, *canary: PodSeries) -> History:
    return History(
        cells=CELLS,
        stable=ArmHistory(name="stable", pods=(stable,)),
        canary=ArmHistory(name="canary", pods=canary),
        start=0.0,
        end=3600.0,
        origin="test",
    )


def changed(series: PodSeries, **values: np.ndarray) -> PodSeries:
    parts = {
        key: getattr(series, key)
        for key in ("pod", "times", "counter_generation", "counts", "busy")
    }
    return PodSeries(**{**parts, **values})


def tabulate(
    history: History, kind: CellKind, blocking: BlockingScheme
) -> tuple[BlockTable, WindowCoverage, WindowCoverage]:
    """Both steps: the table, and what is void of stable's and of the canary's windows."""
    windows = paired_windows(history, kind, blocking)
    return block_table(windows, blocking), windows.stable.coverage, windows.canary.coverage


def test_blocks_hold_the_log_ratio_of_the_rates() -> None:
    table, stable, canary = tabulate(
        history(pod("a", 10), pod("b", 11, phase=7.0)), CellKind.STEP, BLOCKING
    )
    assert table.log_ratios.shape == (6, 2)
    assert table.log_ratios == pytest.approx(np.full((6, 2), math.log(1.1)))
    assert table.starts.tolist() == [0, 600, 1200, 1800, 2400, 3000]
    assert (stable.void_share, canary.void_share) == (0.0, 0.0)


def test_pods_of_an_arm_add_up() -> None:
    """Two pods of 10 and 12 steps a second, equally busy, make 11."""
    table, *_ = tabulate(history(pod("a", 10), pod("b", 10), pod("c", 12)), CellKind.STEP, BLOCKING)
    assert table.log_ratios == pytest.approx(np.full((6, 2), math.log(1.1)))


def test_a_restart_voids_its_window_alone_and_never_extrapolates() -> None:
    fresh = pod("b", 11)
    at = np.searchsorted(fresh.times, 1830)
    counts, busy, counter_generation = (
        fresh.counts.copy(),
        fresh.busy.copy(),
        fresh.counter_generation.copy(),
    )
    counts[at:] -= counts[at]
    busy[at:] -= busy[at]
    counter_generation[at:] = 2
    table, _, canary = tabulate(
        history(
            pod("a", 10),
            changed(fresh, counts=counts, busy=busy, counter_generation=counter_generation),
        ),
        CellKind.STEP,
        BLOCKING,
    )
    assert canary.void == {"process restarted": 1}
    assert table.log_ratios == pytest.approx(np.full((6, 2), math.log(1.1)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(math.inf, "value not finite"), (0.0, "counter went backwards"), (math.nan, "disappeared")],
)
def test_what_no_counter_can_do_voids_its_window(value: float, reason: str) -> None:
    fresh = pod("b", 11)
    counts = fresh.counts.copy()
    counts[100, 0] = value
    table, _, canary = tabulate(
        history(pod("a", 10), changed(fresh, counts=counts)), CellKind.STEP, BLOCKING
    )
    assert any(reason in name for name in canary.void)
    assert 0 < sum(canary.void.values()) <= 2
    assert table.log_ratios == pytest.approx(np.full((6, 2), math.log(1.1)), abs=1e-9)


def test_a_gap_is_void_and_not_spread_over() -> None:
    fresh = pod("b", 11)
    keep = (fresh.times < 1200) | (fresh.times > 2400)
    sparse = changed(
        fresh,
        **{
            key: getattr(fresh, key)[keep]
            for key in ("times", "counter_generation", "counts", "busy")
        },
    )
    table, _, canary = tabulate(history(pod("a", 10), sparse), CellKind.STEP, BLOCKING)
    assert np.isnan(table.log_ratios[2:4]).all()
    assert np.isfinite(table.log_ratios[[0, 1, 4, 5]]).all()
    assert canary.void_share == pytest.approx(20 / 60, abs=1 / 60)


def test_an_arm_without_any_pod_gives_no_data() -> None:
    table, _, canary = tabulate(history(pod("a", 10)), CellKind.STEP, BLOCKING)
    assert np.isnan(table.log_ratios).all()
    assert (canary.expected, canary.void_share, canary.last_scrape) == (0, None, None)


def test_a_cell_that_ran_too_rarely_is_absent() -> None:
    table, *_ = tabulate(
        history(pod("a", 10), pod("b", 11)),
        CellKind.STEP,
        BlockingScheme(block_seconds=600, window_seconds=60, min_count=5000),
    )
    assert np.isnan(table.log_ratios[:, 0]).all()
    assert np.isfinite(table.log_ratios[:, 1]).all()


def test_a_drift_common_to_both_arms_cancels() -> None:
    def drifting(name: str, rate: float) -> PodSeries:
        base = pod(name, rate)
        slow = 1 + base.times / 3600
        return changed(
            base, busy=np.cumsum(np.diff(base.busy, axis=0, prepend=0), axis=0) * slow[:, None]
        )

    table, *_ = tabulate(history(drifting("a", 10), drifting("b", 11)), CellKind.STEP, BLOCKING)
    assert table.log_ratios == pytest.approx(np.full((6, 2), math.log(1.1)), abs=1e-9)


@pytest.mark.parametrize("times", [[0.0, 15.0, 15.0], [0.0, math.nan, 30.0]])
def test_times_that_do_not_grow_are_refused(times: list[float]) -> None:
    with pytest.raises(UsageError, match="do not grow"):
        PodSeries(
            pod="a",
            times=np.array(times),
            counter_generation=np.ones(3),
            counts=np.zeros((3, 2)),
            busy=np.zeros((3, 2)),
        )
