"""`docs/verdict.md`: how often the judge errs, from the stored simulation."""

import json
import math
from pathlib import Path
from typing import Any

from scipy.stats import binomtest  # type: ignore[import-untyped]  # it ships no types

from benchmarks.simulated_canaries import DOWN_MINUTES

_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
_TITLES = {
    "boundary": "The true gain is the margin: a promotion is an error",
    "weak": "Where the judge is weak",
    "gain": "The published gain",
    "none": "No gain, or a loss: a rollback is right",
}

_NOTES = {
    "boundary": (
        "These canaries lie *on* the margin: their gain is the margin, no more and no less. That "
        "is the hardest place for both promises. A canary that gains less is promoted more rarely "
        "than this, one that gains more is rolled back more rarely, and a rollback of one of "
        "these is no error of the judge, as its gain does not exceed the margin.",
        "",
        f"*Pods restart*: each loses {DOWN_MINUTES} minutes with every restart and begins at a "
        "speed of its own, drawn anew; of the spread, half of the variance is the GPU's and half "
        "the start's, which the rules declare (`gpu_sd`, `start_sd`). *Both arms drift*: their "
        "rates rise and fall together by 20 % in three hours, and each has its own traffic. *The "
        "mix moves*: in 12 h from the smallest batch sizes to the largest, of which about four are "
        "busy at once; with weights registered, the gain falls by 8 points from the smallest to "
        "the largest.",
        "",
    ),
    "weak": (
        "Here a promise does not hold, or holds by little. What helps stands at the end of this "
        "page.",
        "",
    ),
}


def verdict_page(note: str) -> str:
    """The page."""
    found: dict[str, Any] = _load("verdict_errors.json")
    rows: list[dict[str, Any]] = found["rows"]
    lines = [
        "# How often the judge errs",
        "",
        note,
        "",
        f"`python -m benchmarks.verdict_errors --output FILE` simulates {found['runs']:,} canaries "
        "a row and has them judged by the judge's own code, after every block, from the first "
        f"look to the deadline: {found['cpu_seconds'] / 60:.0f} minutes of one core. Ten batch "
        "sizes, "
        f"noise of {found['noise']:.0%} a minute, arm and batch size with the stated memory "
        "(AR(1), phi), 30 % of the minutes lost, pods that lie 1.5 % apart for good (four an "
        f"arm), an A/A run of {found['aa_hours']} h before each canary, a deadline of 12 h, a "
        f"margin of {found['margin']:.0%}, unless the row says otherwise. The published gain is "
        "that of vLLM pull request 42098, cell by cell.",
        "",
        "Promised: at most 5 % false promotions, at most 2 % rollbacks (for speed) of a canary "
        "whose gain exceeds the margin. *Covered*: the truth lay between the ends at every look. "
        "*Blocks of*: how long a block is, by the rule for that memory. *Invalid*: the judge "
        "called the comparison void, which promotes nothing. *Median*: of the time to a decision "
        "over all runs, the undecided with their deadline; *deadline* where half or more were. "
        "Intervals are Clopper and Pearson's, for all rows together. Nothing of this was measured "
        "on an MI355X: noise, memory and spread there are not known, and `canary power` wants them "
        "from an A/A run.",
        "",
    ]
    for kind, title in _TITLES.items():
        lines += [
            f"## {title}",
            "",
            *_NOTES.get(kind, ()),
            "| case | blocks of | promoted | rolled back | invalid | covered | median |",
            "|---|---|---|---|---|---|---|",
            *(_row(row) for row in rows if row["kind"] == kind),
            "",
        ]
    lines += _rivals(_load("verdict_rivals.json"))
    lines += _cost(_load("judge_cost.json"))
    return "\n".join([*lines, *_replays(_load("demo_replays.json")), *_READING])


def _load(name: str) -> dict[str, Any]:
    return dict(json.loads((_RESULTS / name).read_text("utf-8")))


def _cost(found: dict[str, Any]) -> list[str]:
    return [
        "## What a verdict costs",
        "",
        f"`python -m benchmarks.judge_cost --output FILE`: {found['hours']:g} h of {found['pods']} "
        f"pods and {found['cells']} cells, scraped every 15 s and in memory, are judged in "
        f"{found['cpu_seconds']:g} s of one core of a shared machine; the process held "
        f"{found['peak_mib']} MiB at most, the samples included. Reading them from Prometheus or "
        "a file comes on top.",
        "",
    ]


def _rivals(found: dict[str, Any]) -> list[str]:
    same, faster = found["queues"]
    lines = [
        "## Beside other ways of judging",
        "",
        f"`python benchmarks/verdict_rivals.py --output FILE --plot FILE`, {found['runs']:,} "
        "canaries a column on the same streams: four pods an arm, noise shared by both arms, a "
        "look every 10 minutes, 12 h. Rules of others are written from their documentation, with "
        "common settings; none of their programs ran.",
        "",
        "![False promotions, and promotions at the published gain](verdict.png)",
        "",
        "| way | no gain: promoted | gain of the margin: promoted | published gain: promoted | "
        "rolled back | median |",
        "|---|---|---|---|---|---|",
    ]
    none, margin, gain = found["canaries"].values()
    lines += [
        f"| {name} | {none[name]['promoted']:.0%} | {margin[name]['promoted']:.0%} "
        f"| {gain[name]['promoted']:.0%} | {gain[name]['rolled_back']:.0%} "
        f"| {gain[name]['median_minutes']:.0f} min |"
        for name in none
    ]
    return [
        *lines,
        "",
        "Raw throughput cannot see the gain, since under given demand a pod puts out what arrives: "
        f"in a simulated queue, arms alike lie {same['raw']:+.1%} apart by raw tokens/s, and with "
        f"a true gain of {math.expm1(faster['true']):+.1%} they lie {faster['raw']:+.1%} apart. "
        f"At equal batch size the judge finds {math.expm1(same['judge']):+.1%} and "
        f"{math.expm1(faster['judge']):+.1%}.",
        "",
    ]


def _replays(found: dict[str, Any]) -> list[str]:
    first, last = found["looks"]
    rows: list[dict[str, Any]] = found["rows"]
    return [
        "## On recorded runs of real servers",
        "",
        "`python benchmarks/demo_replays.py` records one long run of the demo (real vLLM on two "
        "CPU cores that had other work to do), cuts it into stretches of "
        f"{found['stretch']} neighbouring crossover pairs and draws short runs from them, each "
        f"judged after every pair from the {first}th to the {last}th. In *arms alike* a coin says "
        "for each stretch which arm is the canary, so no difference is left; *as recorded* keeps "
        "what lay between the two servers of that one start, which more pods, not more replays, "
        "would average out. Answers are taken as passed: whoever promotes here does so by speed.",
        "",
        "| recorded run | replays | promoted | rolled back: no gain | kept going |",
        "|---|---|---|---|---|",
        *(_replay(row) for row in rows),
        "",
    ]


def _replay(row: dict[str, Any]) -> str:
    said, runs = row["verdicts"], row["runs"]
    low, high = binomtest(said["PROMOTE"], runs).proportion_ci(method="exact")
    kind = "arms alike" if row["swapped"] else "as recorded"
    return (
        f"| `{row['scenario']}`, {row['pairs']} pairs, {kind} | {runs:,} "
        f"| {said['PROMOTE'] / runs:.1%} ({low:.1%} to {high:.1%}) "
        f"| {said['ROLLBACK'] / runs:.1%} | {said['KEEP_GOING'] / runs:.1%} |"
    )


def _row(row: dict[str, Any]) -> str:
    low, high = row["promoted_interval"]
    median = row["median_minutes"]
    shown = f"{median:.0f} min" if median < row["hours"] * 58 else "deadline"
    return (
        f"| {row['name']} | {row['block_minutes']} min | {row['promoted']:.1%} ({low:.1%} to "
        f"{high:.1%}) | {row['rolled_back']:.1%} | {row['invalid']:.1%} | {row['covered']:.1%} "
        f"| {shown} |"
    )


_READING = [
    "## How to read it",
    "",
    "- **Pods decide more than hours.** GPUs of one make lie apart for good, and no time averages "
    "that out: one pod an arm cannot prove the published gain. More pods, or a crossover in which "
    "the arms swap GPUs, can. A crossover keeps the spread between process starts; leaving that "
    "out is the row under *weak*.",
    "- **A canary much noisier than its A/A run** is called invalid once that is plain; before "
    "it is, errors rise. Noise that triples trips the check, noise that doubles does not.",
    "- **A drift of one arm alone** looks like a gain while it lasts. It is called invalid when "
    "the halves of the run disagree; a gain that was real for an hour and went away is promoted. "
    "A watch after the promotion is the answer to that.",
    "- **Pods that restart** keep the promise, if the rules say how far starts lie apart. With "
    "`start_sd` left at 0 and starts as far apart as GPUs, errors double: take both from an A/A "
    "run in which pods restart.",
    "- **A mix that moves.** Without registered `weights` the gain is that of the mix *so far*: a "
    "canary that is faster at small batches and not at large ones is promoted in a night of small "
    "batches. That is no error about the night, and one about the day. Register the day's mix, "
    "or wait for a whole day. What the mix has not reached yet is then taken as no gain, and so "
    "is all busy time without data. Noise moves with the mix too, so such runs are called invalid "
    "more often.",
    "- **Margin below the claim.** A site whose mix gains 4 % cannot prove 4 %. The claim's own "
    "number is reported beside the verdict, with equal weights.",
    "",
]
