"""`docs/verdict.md`: how often the judge errs, from the stored simulation."""

import json
from pathlib import Path
from typing import Any

_RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "verdict_errors.json"
_TITLES = {
    "boundary": "The true gain is the margin: a promotion is an error",
    "weak": "Where the judge is weak",
    "gain": "The published gain",
    "none": "No gain, or a loss: a rollback is right",
}


def verdict_page(note: str) -> str:
    """The page."""
    found: dict[str, Any] = json.loads(_RESULT.read_text("utf-8"))
    rows: list[dict[str, Any]] = found["rows"]
    lines = [
        "# How often the judge errs",
        "",
        note,
        "",
        f"`python benchmarks/verdict_errors.py --output FILE` simulates {found['runs']:,} canaries "
        "a row and has them judged by the judge's own code, after every block, from the first "
        f"look to the deadline: {found['seconds'] // 60} minutes on two cores. Ten batch sizes, "
        f"noise of {found['noise']:.0%} a minute, arm and batch size with the stated memory "
        "(AR(1), phi), 30 % of the minutes lost, pods that lie 1.5 % apart for good (four an "
        f"arm), an A/A run of {found['aa_hours']} h before each canary, a deadline of 12 h, a "
        f"margin of {found['margin']:.0%}, unless the row says otherwise. The published gain is "
        "that of vLLM pull request 42098, cell by cell.",
        "",
        "Promised: at most 5 % false promotions, at most 2 % rollbacks (for speed) of a canary "
        "whose gain exceeds the margin. *Covered*: the truth lay between the ends at every look. "
        "Intervals are Clopper and Pearson's, for all rows together. Nothing of this was measured "
        "on an MI355X: noise, memory and spread there are not known, and `canary plan` wants them "
        "from an A/A run.",
        "",
    ]
    for kind, title in _TITLES.items():
        lines += [
            f"## {title}",
            "",
            "| case | blocks of | promoted | rolled back | invalid | covered | median |",
            "|---|---|---|---|---|---|---|",
            *(_row(row) for row in rows if row["kind"] == kind),
            "",
        ]
    return "\n".join([*lines, *_READING])


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
    "- **Margin below the claim.** A site whose mix gains 4 % cannot prove 4 %. The claim's own "
    "number is reported beside the verdict, with equal weights.",
    "",
]
