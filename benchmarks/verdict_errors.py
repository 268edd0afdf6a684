"""The judge's errors, by simulation on the judge's own code: `docs/verdict.md` shows the result.

    python benchmarks/verdict_errors.py --output benchmarks/results/verdict_errors.json

Each case simulates whole canaries: AR(1) noise a minute, arm and cell, lost windows, pods that lie
apart for good, and an A/A run before each from which the judge takes its noise. Every run is looked
at after every block; the first look that decides counts.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import beta

from moe_serve.canary.analysis.boundary import Looks
from moe_serve.canary.analysis.checks import DRIFT_BLOCKS, RARE, noise_threshold
from moe_serve.canary.analysis.noise import (
    FIRST_LOOK,
    block_seconds,
    long_run_variance,
    plain_variance,
)
from moe_serve.canary.analysis.running import Rule, Running, running
from moe_serve.canary.analysis.table import Estimand, pooled

Floats = NDArray[np.float64]

# vLLM pull request 42098, tokens/s a GPU, before and after: 1k1k, then 8k1k, 4 to 64 at once.
BEFORE = np.array([1650, 2598, 4271, 6866, 10431, 6917, 10388, 15243, 22147, 30309.0])
AFTER = np.array([1727, 2843, 4737, 7812, 12051, 6830, 10985, 16348, 23618, 31564.0])
PUBLISHED = np.log(AFTER / BEFORE)
CELLS = len(PUBLISHED)
WEIGHTS = np.full(CELLS, 1 / CELLS)
MARGIN = math.log(1.04)
NOISE = 0.04
ALPHA_PROMOTE, ALPHA_ROLLBACK = 0.05, 0.02
AA_HOURS = 24
NEVER = 10**6
_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of canary. `truth` is the pooled log gain, spread over cells as `shape` says."""

    name: str
    kind: str
    truth: float
    shape: str = "equal"
    phi: float = 0.7
    aa_phi: float | None = None
    correlation: float = 0.0
    gaps: str = "iid"
    pods: int = 4
    spread: float = 0.015
    freedom: float | None = None
    starts: int = 0
    start_sd: float = 0.0
    start_kept: bool = True
    diurnal: bool = False
    drift: str = ""
    hours: int = 12
    calibrated: bool = True
    estimand: Estimand = Estimand.MIX

    @property
    def block_minutes(self) -> int:
        """By the rule, from the A/A run's own memory."""
        known = self.phi if self.aa_phi is None else self.aa_phi
        return round(block_seconds(known) / 60)


@dataclass(slots=True)
class Tally:
    """Outcomes of the runs of one case; minutes count undecided runs with their deadline."""

    runs: int = 0
    promoted: int = 0
    rolled_back: int = 0
    invalid: int = 0
    uncovered: int = 0
    minutes: list[float] = field(default_factory=list)


def noise(source: np.random.Generator, shape: tuple[int, ...], phi: float) -> Floats:
    """Stationary AR(1) along the last axis: the difference of two arms, log SD a minute."""
    shocks = source.standard_normal(shape) * NOISE * math.sqrt(2 * (1 - phi**2))
    shocks[..., 0] /= math.sqrt(1 - phi**2)
    for at in range(1, shape[-1]):
        shocks[..., at] += phi * shocks[..., at - 1]
    return shocks


def blocks(source: np.random.Generator, case: Case, runs: int, hours: int, phi: float) -> Floats:
    """Log ratios of blocks without any gain, (runs, blocks, cells)."""
    minutes, length = hours * 60, case.block_minutes
    own = noise(source, (runs, CELLS, minutes), phi)
    if case.correlation:
        shared = noise(source, (runs, 1, minutes), phi)
        own = math.sqrt(1 - case.correlation) * own + math.sqrt(case.correlation) * shared
    if case.diurnal:
        own *= 1 + 0.5 * np.sin(2 * math.pi * np.arange(minutes) / (24 * 60))
    if case.gaps == "hours":
        lost = np.repeat(source.random((runs, 1, hours)) < 0.15, 60, axis=2)
        keep = ~np.broadcast_to(lost, own.shape)
    else:
        keep = source.random(own.shape) >= 0.3
    count = minutes // length
    cut = (runs, CELLS, count, length)
    whole = np.where(keep, own, 0.0)[..., : count * length].reshape(cut).sum(-1)
    seen = keep[..., : count * length].reshape(cut).sum(-1)
    found = np.divide(whole, seen, out=np.full(whole.shape, math.nan), where=seen > 0)
    return np.moveaxis(found, 1, 2)


def gains(case: Case) -> Floats:
    """The cells' true log gains, whose pooled value is the case's truth."""
    shape = PUBLISHED - PUBLISHED.mean() if case.shape == "published" else np.zeros(CELLS)
    if case.estimand is Estimand.EQUAL:
        return shape + case.truth
    # The mix's value is not the mean of the logs: shift until it fits exactly.
    return shape + case.truth + math.log(float(WEIGHTS @ np.exp(-shape)))


def simulate(case: Case, runs: int, seed: int) -> Tally:
    """`runs` canaries of one kind."""
    source, tally = np.random.default_rng(seed), Tally()
    for first in range(0, runs, _AT_ONCE):
        _some(source, case, min(_AT_ONCE, runs - first), tally)
    return tally


def _some(source: np.random.Generator, case: Case, runs: int, tally: Tally) -> None:
    aa_phi = case.phi if case.aa_phi is None else case.aa_phi
    calibrated, aa_plain = None, None
    if case.calibrated:
        before = blocks(source, case, runs, AA_HOURS, aa_phi)
        calibrated, aa_r = long_run_variance(pooled(before, WEIGHTS, case.estimand).influence)
        aa_plain = plain_variance(calibrated, aa_r)
    table = blocks(source, case, runs, case.hours, case.phi) + gains(case)
    count = table.shape[1]
    offset, variance, freedom = _offsets(source, case, runs)
    table += offset[:, None, None]
    if case.drift == "one arm":
        table += np.linspace(0.02, -0.02, count)[None, :, None]
    rule = Rule(
        looks=Looks(first=FIRST_LOOK if case.calibrated else 2 * FIRST_LOOK, last=count),
        offset=variance,
        freedom=freedom,
        calibrated=calibrated,
        alpha_low=ALPHA_PROMOTE,
        alpha_high=ALPHA_ROLLBACK,
    )
    looked = running(table, WEIGHTS, rule, estimand=case.estimand)
    invalid = _first(_noisy(looked, aa_plain) | _drifting(table, looked, case.estimand))
    # A void comparison decides nothing, even at the look at which it would.
    promoted = np.where(invalid <= _first(looked.lo > MARGIN), NEVER, _first(looked.lo > MARGIN))
    rolled = np.where(invalid <= _first(looked.hi < MARGIN), NEVER, _first(looked.hi < MARGIN))
    decided = np.minimum(np.minimum(promoted, rolled), invalid)
    at = np.array([*looked.at, count])[np.minimum(decided, len(looked.at))]
    tally.runs += runs
    tally.promoted += int((promoted < rolled).sum())
    tally.rolled_back += int((rolled < promoted).sum())
    tally.invalid += int((invalid < np.minimum(promoted, rolled)).sum())
    outside = (looked.lo > case.truth) | (looked.hi < case.truth)
    tally.uncovered += int(outside.any(axis=1).sum())
    tally.minutes += (at * case.block_minutes).tolist()


def _first(crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The look at which it first holds."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1), NEVER)


def _noisy(looked: Running, aa_plain: Floats | float | None) -> NDArray[np.bool_]:
    """Whether the judge would call the noise unlike its A/A run's, at each look."""
    if aa_plain is None:
        return np.zeros(looked.theta.shape, dtype=bool)
    aa_blocks = AA_HOURS * 6
    limits = np.array([noise_threshold(count, aa_blocks) for count in looked.at])
    plain = plain_variance(looked.in_run, looked.autocorrelation)
    return np.asarray(plain > limits * np.asarray(aa_plain)[:, None])


def _drifting(table: Floats, looked: Running, estimand: Estimand) -> NDArray[np.bool_]:
    """Whether the judge would see one arm drift, at each look."""
    found = np.zeros(looked.theta.shape, dtype=bool)
    for number, count in enumerate(looked.at):
        if count < DRIFT_BLOCKS:
            continue
        values, half = pooled(table[:, :count], WEIGHTS, estimand).influence, count // 2
        apart = values[:, -half:].mean(axis=1) - values[:, :half].mean(axis=1)
        error = np.sqrt(looked.used[:, number] * 2 / half)
        found[:, number] = np.abs(apart) / error > -ndtri(RARE / 2)
    return found


def _offsets(source: np.random.Generator, case: Case, runs: int) -> tuple[Floats, Floats, float]:
    """How far the arms lie apart in each run, what the judge believes of it, and how well."""
    share = 2 / case.pods
    kept = case.start_sd**2 / max(1, case.starts)
    spread = 0.0 if case.starts else case.spread**2
    pods = source.standard_normal((2, runs, case.pods)).mean(axis=2) * math.sqrt(spread)
    starts = source.standard_normal((2, runs, case.pods)).mean(axis=2) * math.sqrt(kept)
    offset = pods[1] - pods[0] + starts[1] - starts[0]
    known = np.ones(runs)
    if case.freedom is not None:
        known = source.chisquare(case.freedom, runs) / case.freedom
    believed = spread + (kept if case.start_kept else 0.0)
    freedom = math.inf if case.freedom is None else case.freedom
    return offset, share * believed * known, freedom


def interval(hits: int, runs: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    low = float(beta.ppf(error / 2, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - error / 2, hits + 1, runs - hits)) if hits < runs else 1.0
    return low, high


def cases() -> list[Case]:
    """The grid: on the boundary, at the published gain, and where the judge is known to be weak."""
    null = Case(name="reference", kind="boundary", truth=MARGIN)
    gain = float(-np.log(WEIGHTS @ np.exp(-PUBLISHED)))
    power = replace(null, kind="gain", truth=gain, shape="published")
    boundary = [
        null,
        *(replace(null, name=f"phi {phi}", phi=phi) for phi in (0.0, 0.8, 0.9, 0.95)),
        *(
            replace(null, name=f"phi {phi}, pods alike", phi=phi, spread=0.0)
            for phi in (0.0, 0.7, 0.9, 0.95)
        ),
        replace(null, name="unequal cells", shape="published"),
        replace(null, name="cells correlated 0.5", correlation=0.5),
        replace(null, name="gaps of an hour", gaps="hours"),
        replace(null, name="spread from 6 df", freedom=6.0),
        replace(null, name="spread from 3 df", freedom=3.0),
        replace(null, name="1 pod an arm, 6 df", pods=1, freedom=6.0),
        replace(null, name="8 pods an arm, 6 df", pods=8, freedom=6.0),
        replace(null, name="day and night", diurnal=True),
        replace(null, name="48 h", hours=48),
        replace(null, name="no A/A run", calibrated=False),
        replace(null, name="no A/A run, pods alike", calibrated=False, spread=0.0),
        replace(null, name="crossover, starts .5 %", starts=2, start_sd=0.005, freedom=3.0),
    ]
    weak = [
        replace(null, name="noisier than its A/A: .9 after .7", kind="weak", phi=0.9, aa_phi=0.7),
        replace(
            null, name="crossover, starts forgotten", kind="weak", starts=2, start_sd=0.005,
            start_kept=False,
        ),
        replace(null, name="one arm drifts by 4 %", kind="weak", drift="one arm"),
    ]  # fmt: skip
    gained = [
        power,
        replace(power, name="spread from 6 df", freedom=6.0),
        *(
            replace(
                power,
                name=name,
                freedom=freedom,
                estimand=Estimand.EQUAL,
                truth=float(PUBLISHED.mean()),
            )
            for name, freedom in (("equal weights", None), ("equal weights, 6 df", 6.0))
        ),
        *(replace(power, name=f"phi {phi}", phi=phi) for phi in (0.9, 0.95)),
        replace(power, name="cells correlated 0.5", correlation=0.5),
        *(replace(power, name=f"{n} pods an arm", pods=n) for n in (1, 2, 8)),
        replace(power, name="1 pod an arm, 6 df", pods=1, freedom=6.0),
        replace(power, name="no A/A run", calibrated=False),
        replace(power, name="a true +8 % in every cell", shape="equal", truth=math.log(1.08)),
    ]
    none = [
        replace(null, name="no gain at all", kind="none", truth=0.0),
        replace(null, name="3 % slower", kind="none", truth=math.log(0.97)),
    ]
    return [*boundary, *weak, *gained, *none]


def main(argv: list[str] | None = None) -> int:
    """Run the grid and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=4000)
    args = parser.parse_args(argv)
    grid, begun, rows = cases(), time.monotonic(), []
    # Bonferroni over the grid: all intervals hold together with 95 %.
    error = 0.05 / len(grid)
    for number, case in enumerate(grid):
        tally = simulate(case, args.runs, seed=1000 + number)
        rows.append(
            {
                **asdict(case),
                "block_minutes": case.block_minutes,
                "runs": tally.runs,
                "promoted": tally.promoted / tally.runs,
                "promoted_interval": interval(tally.promoted, tally.runs, error),
                "rolled_back": tally.rolled_back / tally.runs,
                "rolled_back_interval": interval(tally.rolled_back, tally.runs, error),
                "invalid": tally.invalid / tally.runs,
                "covered": 1 - tally.uncovered / tally.runs,
                "median_minutes": float(np.median(tally.minutes)),
            }
        )
        sys.stderr.write(
            f"{case.kind:9} {case.name:36} promoted {rows[-1]['promoted']:6.1%} rolled back "
            f"{rows[-1]['rolled_back']:6.1%} invalid {rows[-1]['invalid']:6.1%} "
            f"covered {rows[-1]['covered']:6.1%} median {rows[-1]['median_minutes']:.0f} min\n"
        )
    document = {
        "runs": args.runs,
        "margin": math.expm1(MARGIN),
        "noise": NOISE,
        "aa_hours": AA_HOURS,
        "seconds": round(time.monotonic() - begun),
        "rows": rows,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
