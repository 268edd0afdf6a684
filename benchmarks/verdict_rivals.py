"""How common ways of judging a canary err on the same streams: a table and a plot.

    python benchmarks/verdict_rivals.py --output benchmarks/results/verdict_rivals.json

First a queue whose demand is given: what its raw tokens a second say of a faster kernel, and what
rates at equal batch size say. Then whole canaries, judged by the judge and by others' rules.
"""

import argparse
import json
import math
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, t

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.history import ArmHistory, History, PodSeries
from moe_serve.analysis.noise import FIRST_ANALYSIS, PodVariation, long_run_variance
from moe_serve.analysis.running import IntervalRule, running
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import block_table
from moe_serve.analysis.windows import BlockingScheme, paired_windows

Floats = NDArray[np.float64]

MARGIN = math.log(1.04)
HOURS, BLOCK = 12, 10
NOISE, PHI, SHARED = 0.04, 0.7, 0.03
SPREAD, PODS = 0.015, 4
GAINS = {"no gain": 0.0, "gain of the margin": MARGIN, "published gain": math.log(1.077)}
_TOKENS = 200


def queue(gain: float, hours: float, seed: int, top: int = 128) -> tuple[PodSeries, float]:
    """A server under given demand: its counters by exact batch size, and its raw tokens/s.

    Steps take 8 ms + 0.12 ms a running request, over `gain`; a request needs 200 tokens.
    """
    source = np.random.default_rng(seed)
    horizon, rate = hours * 3600, 10.3
    arrivals = np.cumsum(source.exponential(1 / rate, int(rate * horizon * 1.1))).tolist()
    counts, busy = np.zeros(top), np.zeros(top)
    done: deque[int] = deque()
    now, step, place, tokens = 0.0, 0, 0, 0
    rows: list[tuple[float, Floats, Floats]] = []
    next_row = 0.0
    while now < horizon:
        while arrivals[place] <= now:
            done.append(step + _TOKENS)
            place += 1
        while done and done[0] <= step:
            done.popleft()
        if now >= next_row:
            rows.append((now, counts.copy(), busy.copy()))
            next_row += 15.0
        running_now = min(len(done), top)
        if not running_now:
            now = arrivals[place]
            continue
        took = (0.008 + 0.00012 * running_now) / gain
        counts[running_now - 1] += 1
        busy[running_now - 1] += took
        tokens += running_now
        now, step = now + took, step + 1
    times, runs, spent = zip(*rows, strict=True)
    pod = PodSeries(
        pod=f"pod-{seed}",
        times=np.array(times),
        counter_generation=np.ones(len(times)),
        counts=np.array(runs),
        busy=np.array(spent),
    )
    return pod, tokens / now


def demand(gain: float, hours: float = 4.0) -> dict[str, float]:
    """Log gains as raw throughput tells them, and as the judge does."""
    stable, raw_stable = queue(1.0, hours, 1)
    canary, raw_canary = queue(gain, hours, 2)
    history = History(
        cells=tuple(
            Cell(kind=CellKind.STEP, layer=None, bucket=n, mode="full") for n in range(1, 129)
        ),
        stable=ArmHistory(name="stable", pods=(stable,)),
        canary=ArmHistory(name="canary", pods=(canary,)),
        start=0.0,
        end=hours * 3600,
        origin="a simulated queue",
    )
    blocking = BlockingScheme()
    table = block_table(paired_windows(history, CellKind.STEP, blocking), blocking)
    settings = EstimatorSettings(
        interim_analyses=InterimAnalyses(first=12, last=len(table.starts)),
        pod_variation=PodVariation(),
    )
    found = estimate(table, CellKind.STEP, settings)
    if not isinstance(found, Estimate):
        raise SystemExit(found.reason)
    return {
        "true": math.log(gain),
        "raw": math.log(raw_canary / raw_stable),
        "judge": found.theta,
        "covered": found.covered_weight,
    }


def walk(source: np.random.Generator, shape: tuple[int, int], phi: float, sd: float) -> Floats:
    """Stationary AR(1) along the last axis."""
    made = source.standard_normal(shape) * sd * math.sqrt(1 - phi**2)
    made[:, 0] /= math.sqrt(1 - phi**2)
    for at in range(1, shape[1]):
        made[:, at] += phi * made[:, at - 1]
    return made


def rivals(gain: float, raw_share: float, runs: int, seed: int) -> dict[str, Any]:
    """Shares promoted and rolled back, and the median minutes, of each way of judging.

    `raw_share` is what part of a log gain raw throughput shows (it may be negative).
    """
    source, minutes = np.random.default_rng(seed), HOURS * 60
    shape, cells = (runs, minutes), 10
    shared = walk(source, shape, 0.9, SHARED)
    # Averaged over ten batch sizes, an arm's noise is that much smaller.
    stable, canary = (walk(source, shape, PHI, NOISE / math.sqrt(cells)) for _ in range(2))
    offset = source.standard_normal((runs, 2)) * SPREAD / math.sqrt(PODS)
    canary += gain + (offset[:, 1] - offset[:, 0])[:, None]
    blocks = (canary - stable).reshape(runs, -1, BLOCK).mean(-1)
    asked = source.standard_normal((2, *shape)) * 0.05
    raw = (asked[1] - asked[0] + raw_share * gain).reshape(runs, -1, BLOCK).mean(-1)
    one, other = ((arm + shared).reshape(runs, -1, BLOCK).mean(-1) for arm in (stable, canary))
    return {
        "judge": _judged(source, blocks, runs),
        "t test against 0, polled": _polled(blocks, 0.0),
        "t test against the margin, polled": _polled(blocks, MARGIN),
        "Mann-Whitney as Kayenta, polled": _kayenta(one, other),
        "threshold on raw rate, as Argo": _threshold(raw, MARGIN, wanted=3, allowed=10),
        "threshold on raw rate, as Flagger": _threshold(raw, 0.0, wanted=10, allowed=5),
    }


def _judged(source: np.random.Generator, blocks: Floats, runs: int) -> dict[str, float]:
    before = walk(source, (runs, 24 * 60), PHI, NOISE * math.sqrt(2 / 10))
    known, _ = long_run_variance(before.reshape(runs, -1, BLOCK).mean(-1))
    rule = IntervalRule(
        interim_analyses=InterimAnalyses(first=FIRST_ANALYSIS, last=blocks.shape[1]),
        offset=2 * SPREAD**2 / PODS,
        freedom=math.inf,
        calibrated=known,
        alpha_low=0.05,
        alpha_high=0.02,
    )
    found = running(blocks[:, :, None], np.ones(1), rule)
    return _outcome(found.lo > MARGIN, found.hi < MARGIN, FIRST_ANALYSIS)


def _polled(blocks: Floats, against: float) -> dict[str, float]:
    """Promote as soon as p < 0.05, roll back as soon as the other side is."""
    counts = np.arange(1, blocks.shape[1] + 1)
    mean = np.cumsum(blocks, axis=1) / counts
    square = np.cumsum(blocks**2, axis=1) / counts - mean**2
    error = np.sqrt(np.maximum(square, 1e-12) / np.maximum(counts - 1, 1))
    score = ((mean - against) / error)[:, FIRST_ANALYSIS - 1 :]
    limit = t.ppf(0.95, counts[FIRST_ANALYSIS - 1 :] - 1)
    return _outcome(score > limit, score < -limit, FIRST_ANALYSIS)


def _kayenta(one: Floats, other: Floats) -> dict[str, float]:
    """Passed unless the canary is shown to be lower (confidence 0.98): no harm is success."""
    interim_analyses = range(FIRST_ANALYSIS, one.shape[1] + 1, 6)
    lower = np.stack(
        [
            mannwhitneyu(other[:, :k], one[:, :k], axis=1, alternative="less").pvalue < 0.02
            for k in interim_analyses
        ],
        axis=1,
    )
    passed = np.zeros_like(lower)
    passed[:, 2] = True  # three good looks, and it is promoted
    return _outcome(passed, lower, FIRST_ANALYSIS, every=6)


def _threshold(raw: Floats, wanted_ratio: float, *, wanted: int, allowed: int) -> dict[str, float]:
    """Promote after so many good blocks in sum, abort after so many bad ones."""
    good = raw > wanted_ratio
    return _outcome(np.cumsum(good, axis=1) >= wanted, np.cumsum(~good, axis=1) > allowed, 1)


def _outcome(
    promote: NDArray[np.bool_], abort: NDArray[np.bool_], first: int, every: int = 1
) -> dict[str, float]:
    never = promote.shape[1]
    promoted = np.where(promote.any(1), promote.argmax(1), never)
    aborted = np.where(abort.any(1), abort.argmax(1), never)
    decided = np.minimum(np.minimum(promoted, aborted), never - 1)
    return {
        "promoted": float((promoted < aborted).mean()),
        "rolled_back": float(((aborted < never) & (aborted <= promoted)).mean()),
        "median_minutes": float(np.median((first + every * decided) * BLOCK)),
    }


def draw(document: dict[str, Any], path: Path) -> None:
    """What each way promotes, by the true gain."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(document["canaries"]["no gain"])
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), sharey=True, layout="constrained")
    for axis, (title, values) in zip(
        axes,
        (
            ("promoted without any gain (wrong)", "no gain"),
            ("promoted at the margin (5 % promised)", "gain of the margin"),
            ("promoted at the published gain (right)", "published gain"),
        ),
        strict=True,
    ):
        shares = [document["canaries"][values][name]["promoted"] * 100 for name in names]
        colours = ["#1f6feb" if name == "judge" else "#9aa0a6" for name in names]
        axis.barh(names, shares, color=colours)
        for place, share in enumerate(shares):
            axis.text(share + 1.5, place, f"{share:.0f} %", va="center")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlim(0, 118)
        axis.set_xticks(range(0, 101, 25))
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("% of canaries")
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main(argv: list[str] | None = None) -> int:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    args = parser.parse_args(argv)
    queues = [demand(1.0), demand(1.08)]
    raw_share = (queues[1]["raw"] - queues[0]["raw"]) / math.log(1.08)
    document = {
        "runs": args.runs,
        "queues": queues,
        "canaries": {
            name: rivals(gain, raw_share, args.runs, 77 + number)
            for number, (name, gain) in enumerate(GAINS.items())
        },
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if args.plot:
        draw(document, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
