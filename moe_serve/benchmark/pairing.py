"""Runs arranged by arm, cell and pair, or the reasons why they cannot be paired."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_serve.benchmark.results import BenchmarkArm, BenchmarkCell, BenchmarkRun, Latencies

Floats = NDArray[np.float64]
# Clients that tokenize the text again count slightly different numbers of tokens.
TOKENS_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRuns:
    """Both arms' runs in every cell of every pair, keyed by (arm, cell, pair).

    `labelled` is False for single runs without pairs, as in a published table.
    """

    cells: tuple[BenchmarkCell, ...]
    pairs: tuple[int, ...]
    runs: Mapping[tuple[BenchmarkArm, BenchmarkCell, int], BenchmarkRun]
    labelled: bool

    def first_arms(self) -> tuple[BenchmarkArm, ...] | None:
        """The arm that ran first in each pair; None if a run has no time, or clocks differ."""
        found: list[BenchmarkArm] = []
        for pair in self.pairs:
            runs = [self.runs[arm, cell, pair] for arm in BenchmarkArm for cell in self.cells]
            if len({run.clock for run in runs}) > 1:
                return None
            times = {
                arm: [self.runs[arm, cell, pair].started for cell in self.cells]
                for arm in BenchmarkArm
            }
            if any(time is None for row in times.values() for time in row):
                return None
            first = {arm: min(t for t in row if t is not None) for arm, row in times.items()}
            found.append(min(BenchmarkArm, key=lambda arm: first[arm]))
        return tuple(found)

    def one_arm_at_a_time(self) -> bool:
        """Whether all runs of one arm came before all of the other, over two pairs or more.

        False too where their clocks have no order.
        """
        if len({run.clock for run in self.runs.values()}) > 1:
            return False
        ended: dict[BenchmarkArm, list[float]] = {
            arm: [run.started for (of, _, _), run in self.runs.items() if of is arm and run.started]
            for arm in BenchmarkArm
        }
        stable, canary = ended[BenchmarkArm.STABLE], ended[BenchmarkArm.CANARY]
        if len(self.pairs) < 2 or not (stable and canary):
            return False
        return max(stable) < min(canary) or max(canary) < min(stable)

    def log_ratios(self, value: Callable[[BenchmarkRun], float | None]) -> Floats | None:
        """log(canary / stable), shape (pairs, cells); None if any run lacks the value."""
        found: dict[BenchmarkArm, list[list[float]]] = {}
        for arm in BenchmarkArm:
            rows = [[value(self.runs[arm, c, p]) for c in self.cells] for p in self.pairs]
            known = [[number for number in row if number is not None] for row in rows]
            if any(len(row) != len(self.cells) for row in known):
                return None
            found[arm] = known
        ratio: Floats = np.log(np.asarray(found[BenchmarkArm.CANARY])) - np.log(
            np.asarray(found[BenchmarkArm.STABLE])
        )
        return ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """The reasons why runs cannot be paired, one clause each."""

    faults: tuple[str, ...]


def paired(runs: Sequence[BenchmarkRun]) -> PairedRuns | Unpaired:
    """The runs by arm, cell and pair; every combination must be there exactly once."""
    arms = {run.arm for run in runs}
    if missing := [arm.value for arm in BenchmarkArm if arm not in arms]:
        return Unpaired(faults=(f"no run of arm {' and '.join(missing)}",))
    labelled = {run.pair is not None for run in runs}
    if len(labelled) > 1:
        few = [run.source for run in runs if run.pair is None]
        return Unpaired(
            faults=(f"only some runs have a pair, {_listed(few)} have none; give all of them one",)
        )
    numbered = [(run, run.pair or 1) for run in runs]
    counted = Counter((run.arm, run.cell, pair) for run, pair in numbered)
    found = PairedRuns(
        cells=tuple(sorted({run.cell for run in runs})),
        pairs=tuple(sorted({pair for _, pair in numbered})),
        runs={(run.arm, run.cell, pair): run for run, pair in numbered},
        labelled=True in labelled,
    )
    faults = (*_twice(counted), *_copies(runs), *_holes(found))
    # Tokens and times are compared only where no run is missing.
    faults = faults or (*_other_work(found), *_apart(found))
    return Unpaired(faults=faults) if faults else found


def _apart(found: PairedRuns) -> tuple[str, ...]:
    if not found.one_arm_at_a_time():
        return ()
    return (
        "not interleaved: all runs of one arm came before those of the other, so that a drift of "
        "the machine looks like a gain; run them pair by pair",
    )


def _twice(counted: Mapping[tuple[BenchmarkArm, BenchmarkCell, int], int]) -> tuple[str, ...]:
    many = [f"{a.value} {c} pair {p}" for (a, c, p), count in counted.items() if count > 1]
    return (f"more than one run of {_listed(many)}",) if many else ()


def _copies(runs: Sequence[BenchmarkRun]) -> tuple[str, ...]:
    """Runs with equal figures: two runs never agree in all of them, so these are copies."""
    seen: dict[tuple[BenchmarkArm, BenchmarkCell, float, Latencies], str] = {}
    found: list[str] = []
    for run in runs:
        key = (run.arm, run.cell, run.tput_per_gpu, run.latencies)
        if key in seen:
            found.append(f"{run.source} (as {seen[key]})")
        seen.setdefault(key, run.source)
    return (f"the same figures twice: {_listed(found)}; remove the copies",) if found else ()


def _holes(found: PairedRuns) -> tuple[str, ...]:
    holes = [
        f"{arm.value} {cell} pair {pair}"
        for pair in found.pairs
        for cell in found.cells
        for arm in BenchmarkArm
        if (arm, cell, pair) not in found.runs
    ]
    return (f"unequal cells: no run of {_listed(holes)}",) if holes else ()


def _other_work(found: PairedRuns) -> tuple[str, ...]:
    """Cells in which the arms generated unequal numbers of tokens: rates need equal work."""
    faults: list[str] = []
    for pair in found.pairs:
        for cell in found.cells:
            runs = [found.runs[arm, cell, pair] for arm in BenchmarkArm]
            stable, canary = (run.output_tokens for run in runs)
            # Failed requests lack tokens as well, and have a guard of their own.
            if any(run.failed for run in runs):
                continue
            if stable is None or canary is None:
                continue
            if abs(canary - stable) > TOKENS_TOLERANCE * max(stable, canary):
                faults.append(f"{cell} pair {pair} ({stable} and {canary})")
    if not faults:
        return ()
    return (f"the arms made unequal numbers of tokens in {_listed(faults)}; use --ignore-eos",)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(items[:3]) + more
