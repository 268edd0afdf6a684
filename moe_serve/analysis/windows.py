"""Step 1 of a comparison: scraped counters become growth per window, arm and cell.

What is not plain growth of counters voids its window: a restart, a missing or a falling counter.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_serve.analysis.history import ArmHistory, History, PodSeries
from moe_serve.analysis.series import DECODE, MIXED, Cell, CellKind, Floats
from moe_serve.errors import UsageError

# A gap longer than this many usual intervals is no window: what happened in it is not known.
_MAX_GAP = 2.5
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingScheme:
    """How time is cut: windows, in which the arms are paired, and blocks of whole windows.

    `min_count` runs of a cell are needed from each arm in a block.
    """

    block_seconds: float = 600.0
    window_seconds: float = 60.0
    min_count: int = 200

    def __post_init__(self) -> None:
        """Refuse blocks that no windows make up."""
        windows = self.block_seconds / self.window_seconds
        if windows < 1 or not windows.is_integer():
            raise UsageError(
                f"blocks of {self.block_seconds:g} s are not made of whole windows of "
                f"{self.window_seconds:g} s: make seconds a multiple of window_seconds"
            )

    @property
    def windows_per_block(self) -> int:
        """Windows that make up one block."""
        return round(self.block_seconds / self.window_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCoverage:
    """How many windows an arm's pods should have, and how many are void, by reason.

    `last_scrape` is the latest scrape of any pod, in seconds since the epoch; None: there is none.
    """

    expected: int
    void: dict[str, int]
    last_scrape: float | None

    @property
    def void_share(self) -> float | None:
        """Void windows over expected ones; None if none was expected."""
        return sum(self.void.values()) / self.expected if self.expected else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmWindows:
    """One arm's `runs` and `busy` seconds (windows, cells), summed over its pods; 0 where void."""

    runs: Floats
    busy: Floats
    coverage: WindowCoverage


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedWindows:
    """Both arms in the same windows, from `start` (seconds since the epoch) on."""

    cells: tuple[Cell, ...]
    start: float
    stable: ArmWindows
    canary: ArmWindows


def paired_windows(
    history: History, kind: CellKind, blocking: BlockingScheme, *, phase: str = DECODE
) -> PairedWindows:
    """Both arms' runs and busy seconds in every window of the history's whole blocks.

    `phase` is DECODE (every cell that is not mixed) or MIXED.
    """
    columns = [
        number
        for number, cell in enumerate(history.cells)
        if cell.kind is kind and (cell.phase == MIXED) is (phase == MIXED)
    ]
    # A scrape interval past its end, no further sample can change a block.
    blocks = int((history.end - history.start + _TINY) // blocking.block_seconds)
    count = blocks * blocking.windows_per_block
    stable, canary = (
        arm_windows(arm, columns, history.start, blocking.window_seconds, count)
        for arm in (history.stable, history.canary)
    )
    return PairedWindows(
        cells=tuple(history.cells[number] for number in columns),
        start=history.start,
        stable=stable,
        canary=canary,
    )


def arm_windows(
    arm: ArmHistory, columns: list[int], start: float, width: float, count: int
) -> ArmWindows:
    """One arm's first `count` windows of `width` seconds, of the history's cells in `columns`."""
    runs, busy = np.zeros((count, len(columns))), np.zeros((count, len(columns)))
    seen = np.zeros((len(arm.pods), count), dtype=bool)
    void: dict[str, int] = {}
    last: float | None = None
    for number, pod in enumerate(arm.pods):
        if not len(pod.times):
            continue
        last = max(last or -math.inf, float(pod.times[-1]))
        faults = _growth_faults(pod)
        middle = (pod.times[1:] + pod.times[:-1]) / 2
        place = np.floor((middle - start) / width).astype(int)
        inside = (place >= 0) & (place < count)
        for reason, at in faults.items():
            # A window is void once, whatever else happened in it: under its first reason.
            lost = np.unique(place[at & inside])
            lost = lost[~seen[number, lost]]
            seen[number, lost] = True
            if len(lost):
                void[reason] = void.get(reason, 0) + len(lost)
        bad = np.logical_or.reduce([np.zeros(len(middle), bool), *faults.values()])
        # One bad interval voids its window: half a window would weigh the arms differently.
        spoiled = np.isin(place, place[bad & inside])
        good = inside & ~spoiled
        seen[number, place[good]] = True
        np.add.at(runs, place[good], _grown(pod.counts[:, columns])[good])
        np.add.at(busy, place[good], _grown(pod.busy[:, columns])[good])
    missing = int((~seen).sum())
    if missing:
        void["no scrape"] = missing
    return ArmWindows(
        runs=runs,
        busy=busy,
        coverage=WindowCoverage(expected=len(arm.pods) * count, void=void, last_scrape=last),
    )


def _growth_faults(pod: PodSeries) -> dict[str, NDArray[np.bool_]]:
    """Intervals between two scrapes that say nothing, by reason (each interval under one)."""
    gaps = np.diff(pod.times)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    values = np.concatenate([pod.counts, pod.busy], axis=1)
    infinite = np.isinf(values)
    values[infinite] = math.nan
    highest = _highest(values, pod.counter_generation)
    # A cell that was there and is gone is a counter lost; one that is new began at zero. What
    # comes back is no growth either: nobody knows what happened to it in between.
    gone = np.isnan(values) & ~np.isnan(highest) & ~infinite
    faults: dict[str, NDArray[np.bool_]] = {}
    taken = np.zeros(len(gaps), dtype=bool)
    for reason, at in (
        ("process restarted", np.diff(pod.counter_generation) != 0),
        ("value not finite", _either_end(infinite)),
        ("counter went backwards", _either_end(values < highest)),
        ("counter disappeared", _either_end(gone)),
        ("scrapes too far apart", gaps > _MAX_GAP * usual),
    ):
        faults[reason] = at & ~taken
        taken |= at
    return {reason: at for reason, at in faults.items() if at.any()}


def _highest(values: Floats, counter_generation: Floats) -> Floats:
    """The largest value so far of each counter within its process; NaN before it was there."""
    edges = [
        0,
        *(np.flatnonzero(np.diff(counter_generation)) + 1).tolist(),
        len(counter_generation),
    ]
    parts = [
        np.fmax.accumulate(values[first:last], axis=0) for first, last in itertools.pairwise(edges)
    ]
    highest: Floats = np.concatenate(parts)
    return highest


def _either_end(fault: NDArray[np.bool_]) -> NDArray[np.bool_]:
    at: NDArray[np.bool_] = fault.sum(axis=1) > 0
    return at[1:] | at[:-1]


def _grown(values: Floats) -> Floats:
    """Growth between scrapes; a cell that is new started from zero, an absent one did not grow."""
    grown: Floats = np.diff(np.nan_to_num(values, nan=0.0), axis=0)
    return grown
