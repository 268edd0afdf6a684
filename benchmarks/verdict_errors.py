"""The judge's errors, by simulation on the judge's own code: `docs/verdict.md` shows the result.

    python -m benchmarks.verdict_errors --output benchmarks/results/verdict_errors.json

Each case simulates whole canaries, and an A/A run before each from which the judge takes its noise.
Every run is looked at after every block; the first look that decides counts.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import beta

from benchmarks.simulated_canaries import (
    MARGIN,
    NOISE,
    PUBLISHED,
    Case,
    Floats,
    blocks,
    gains,
    offsets,
    weights,
)
from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.checks import DRIFT_BLOCKS, RARE, noise_threshold
from moe_serve.analysis.noise import (
    FIRST_ANALYSIS,
    long_run_variance,
    plain_variance,
)
from moe_serve.analysis.policy import Policy
from moe_serve.analysis.running import IntervalRule, RunningEstimate, running
from moe_serve.analysis.table import MIN_BLOCKS, Estimand, of_the_whole, pooled

ALPHA_PROMOTE, ALPHA_ROLLBACK = 0.05, 0.02
AA_HOURS = 24
NEVER = 10**6
MIN_COVERED = Policy().min_covered_weight
_AT_ONCE = 500
# Together as far apart as pods are elsewhere, half of the variance the start's.
RESTARTS: dict[str, Any] = {
    "restarts": 3.0, "spread": 0.015 / math.sqrt(2), "start_sd": 0.015 / math.sqrt(2),
}  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Outcomes of the runs of one case; minutes count undecided runs with their deadline."""

    runs: int = 0
    promoted: int = 0
    rolled_back: int = 0
    invalid: int = 0
    uncovered: int = 0
    minutes: list[float] = field(default_factory=list)


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
        # The whole day's mix, as a registration would have it.
        whole = weights(case, (case.hours * 60 // case.block_minutes,))[0]
        calibrated, aa_r = long_run_variance(pooled(before, whole, case.estimand).influence)
        aa_plain = plain_variance(calibrated, aa_r)
    table = blocks(source, case, runs, case.hours, case.phi) + gains(case)
    count = table.shape[1]
    offset, variance, freedom = offsets(source, case, runs)
    table += offset[:, None, None]
    if case.drift == "one arm":
        table += np.linspace(0.02, -0.02, count)[None, :, None]
    rule = IntervalRule(
        interim_analyses=InterimAnalyses(
            first=FIRST_ANALYSIS if case.calibrated else 2 * FIRST_ANALYSIS, last=count
        ),
        offset=variance,
        freedom=freedom,
        calibrated=calibrated,
        alpha_low=ALPHA_PROMOTE,
        alpha_high=ALPHA_ROLLBACK,
    )
    shares = weights(case, tuple(range(rule.interim_analyses.first, count + 1)))
    looked = _looked(table, shares, rule, case)
    invalid = _first(_noisy(looked, aa_plain) | _drifting(table, shares, looked, case.estimand))
    lo = of_the_whole(looked.lo, looked.covered) if case.estimand is Estimand.MIX else looked.lo
    gained = _first((lo > MARGIN) & (looked.covered >= MIN_COVERED))
    # A void comparison decides nothing, even at the look at which it would.
    promoted = np.where(invalid <= gained, NEVER, gained)
    rolled = np.where(invalid <= _first(looked.hi < MARGIN), NEVER, _first(looked.hi < MARGIN))
    decided = np.minimum(np.minimum(promoted, rolled), invalid)
    at = np.array([*looked.at, count])[np.minimum(decided, len(looked.at))]
    tally.runs += runs
    tally.promoted += int((promoted < rolled).sum())
    tally.rolled_back += int((rolled < promoted).sum())
    tally.invalid += int((invalid < np.minimum(promoted, rolled)).sum())
    truth = _truth(case, table, shares, looked)
    outside = (looked.lo > truth) | (looked.hi < truth)
    tally.uncovered += int(outside.any(axis=1).sum())
    tally.minutes += (at * case.block_minutes).tolist()


def _truth(case: Case, table: Floats, shares: Floats, looked: RunningEstimate) -> Floats:
    """The gain of what each look speaks for: the cells that it covers, at its weights."""
    if not case.ramp:
        return np.full(looked.lo.shape, case.truth)
    own = gains(case)
    found = [(~np.isnan(table[:, :count])).sum(axis=1) >= MIN_BLOCKS for count in looked.at]
    weight = np.stack(found, axis=1) * shares
    weight /= np.maximum(weight.sum(axis=2, keepdims=True), 1e-12)
    return np.asarray(-np.log(weight @ np.exp(-own)))


def _looked(table: Floats, shares: Floats, rule: IntervalRule, case: Case) -> RunningEstimate:
    """The judge's estimate at every look, with the weights that it has then."""
    if not case.ramp:
        return running(table, shares[0], rule, estimand=case.estimand)
    found = [
        running(table, own, rule, estimand=case.estimand, at=[count])
        for count, own in enumerate(shares, start=rule.interim_analyses.first)
    ]
    parts = (field.name for field in fields(RunningEstimate) if field.name != "at")
    return RunningEstimate(
        at=tuple(look.at[0] for look in found),
        **{name: np.concatenate([getattr(look, name) for look in found], -1) for name in parts},
    )


def _first(crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The look at which it first holds."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1), NEVER)


def _noisy(looked: RunningEstimate, aa_plain: Floats | float | None) -> NDArray[np.bool_]:
    """Whether the judge would call the noise unlike its A/A run's, at each look."""
    if aa_plain is None:
        return np.zeros(looked.theta.shape, dtype=bool)
    aa_blocks = AA_HOURS * 6
    limits = np.array([noise_threshold(count, aa_blocks) for count in looked.at])
    plain = plain_variance(looked.in_run, looked.autocorrelation)
    return np.asarray(plain > limits * np.asarray(aa_plain)[:, None])


def _drifting(
    table: Floats, shares: Floats, looked: RunningEstimate, estimand: Estimand
) -> NDArray[np.bool_]:
    """Whether the judge would see one arm drift, at each look."""
    found = np.zeros(looked.theta.shape, dtype=bool)
    for number, count in enumerate(looked.at):
        if count < DRIFT_BLOCKS:
            continue
        values, half = pooled(table[:, :count], shares[number], estimand).influence, count // 2
        mean_log_ratio = values[:, -half:].mean(axis=1) - values[:, :half].mean(axis=1)
        error = np.sqrt(looked.used[:, number] * 2 / half)
        found[:, number] = np.abs(mean_log_ratio) / error > -ndtri(RARE / 2)
    return found


def interval(hits: int, runs: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    low = float(beta.ppf(error / 2, hits, runs - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - error / 2, hits + 1, runs - hits)) if hits < runs else 1.0
    return low, high


def cases() -> list[Case]:
    """The grid: on the boundary, at the published gain, and where the judge is known to be weak."""
    null = Case(name="reference", kind="boundary", truth=MARGIN)
    gain = float(-np.log(np.exp(-PUBLISHED).mean()))
    power = replace(null, kind="gain", truth=gain, shape="published")
    boundary = [
        null,
        *(replace(null, name=f"phi {phi}", phi=phi) for phi in (0.0, 0.8, 0.9, 0.95)),
        *(
            replace(null, name=f"phi {phi}, pods alike", phi=phi, pod_variation=0.0)
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
        replace(null, name="no A/A run, pods alike", calibrated=False, pod_variation=0.0),
        replace(null, name="crossover, starts .5 %", starts=2, start_sd=0.005, freedom=3.0),
        replace(null, name="pods restart 3 times a day", **RESTARTS),
        replace(null, name="pods restart 12 times a day", **{**RESTARTS, "restarts": 12.0}),
        replace(
            null, name="pods restart 3 times a day, all spread theirs", restarts=3.0,
            pod_variation=0.0, start_sd=0.015,
        ),
        replace(null, name="1 pod an arm, restarts 3 times a day, 6 df", **RESTARTS, pods=1,
                freedom=6.0),
        replace(null, name="both arms drift together by 20 %", drift="both arms"),
        replace(null, name="the mix moves, cells alike", ramp="own"),
        replace(
            null, name="the mix moves, weights registered", ramp="registered",
            shape="small batches",
        ),
    ]  # fmt: skip
    weak = [
        replace(null, name="noisier than its A/A: .9 after .7", kind="weak", phi=0.9, aa_phi=0.7),
        replace(
            null, name="crossover, starts forgotten", kind="weak", starts=2, start_sd=0.005,
            start_kept=False,
        ),
        replace(null, name="one arm drifts by 4 %", kind="weak", drift="one arm"),
        replace(
            null, name="pods restart, starts forgotten", kind="weak", **RESTARTS, start_kept=False
        ),
        replace(
            null, name="the mix moves, its own weights", kind="weak", ramp="own",
            shape="small batches",
        ),
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
        replace(power, name="pods restart 3 times a day", **RESTARTS),
        replace(power, name="both arms drift together by 20 %", drift="both arms"),
        replace(power, name="the mix moves, weights registered", ramp="registered"),
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
    grid, begun, rows = cases(), time.process_time(), []
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
        "cpu_seconds": round(time.process_time() - begun),
        "rows": rows,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
