"""Runs laid out as pairs x cells, or the faults that forbid any comparison."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_serve.canary.benchmarks.results import Arm, BenchmarkRun, Cell

Floats = NDArray[np.float64]
# Clients that count tokens by tokenizing the text again come out a little different.
TOKENS_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Both arms in every cell of every pair; `runs` is keyed by (arm, cell, pair)."""

    cells: tuple[Cell, ...]
    pairs: tuple[int, ...]
    runs: Mapping[tuple[Arm, Cell, int], BenchmarkRun]

    def log_ratios(self, value: Callable[[BenchmarkRun], float | None]) -> Floats | None:
        """log(canary / stable), shape (pairs, cells); None if any run lacks the value."""
        found: dict[Arm, list[list[float]]] = {}
        for arm in Arm:
            rows = [[value(self.runs[arm, c, p]) for c in self.cells] for p in self.pairs]
            known = [[number for number in row if number is not None] for row in rows]
            if any(len(row) != len(self.cells) for row in known):
                return None
            found[arm] = known
        ratio: Floats = np.log(np.asarray(found[Arm.CANARY])) - np.log(
            np.asarray(found[Arm.STABLE])
        )
        return ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """Why these runs are no paired comparison, one sentence each."""

    faults: tuple[str, ...]


def paired(runs: Sequence[BenchmarkRun]) -> Paired | Unpaired:
    """Lay out the runs; every cell must be there once for each arm and pair."""
    counted = Counter((run.arm, run.cell, run.pair) for run in runs)
    arms = {run.arm for run in runs}
    if missing := [arm.value for arm in Arm if arm not in arms]:
        return Unpaired(faults=(f"no run of arm {' and '.join(missing)}",))
    cells = tuple(sorted({run.cell for run in runs}))
    pairs = tuple(sorted({run.pair for run in runs}))
    by_key = {(run.arm, run.cell, run.pair): run for run in runs}
    found = Paired(cells=cells, pairs=pairs, runs=by_key)
    faults = (*_twice(counted), *_holes(found))
    # Only a whole layout can be asked for its tokens.
    faults = faults or _other_work(found)
    return Unpaired(faults=faults) if faults else found


def _twice(counted: Mapping[tuple[Arm, Cell, int], int]) -> tuple[str, ...]:
    many = [f"{a.value} {c} pair {p}" for (a, c, p), count in counted.items() if count > 1]
    return (f"more than one run of {_listed(many)}",) if many else ()


def _holes(found: Paired) -> tuple[str, ...]:
    holes = [
        f"{arm.value} {cell} pair {pair}"
        for pair in found.pairs
        for cell in found.cells
        for arm in Arm
        if (arm, cell, pair) not in found.runs
    ]
    return (f"unequal cells: no run of {_listed(holes)}",) if holes else ()


def _other_work(found: Paired) -> tuple[str, ...]:
    """Rates of unequal work say nothing: the answers must be as long in both arms."""
    faults: list[str] = []
    for pair in found.pairs:
        for cell in found.cells:
            stable, canary = (found.runs[arm, cell, pair].output_tokens for arm in Arm)
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
