"""How the judge errs on runs of the demo: one long recording, resampled into many short runs.

    python benchmarks/demo_replays.py record --scenario noop --blocks 240 --file noop.json
    python benchmarks/demo_replays.py replay --file noop.json --output benchmarks/results/...

A replay is made of stretches of neighbouring crossover pairs, drawn with replacement, so that
what memory the machine's noise has within a stretch stays. It is judged as the demo judges:
after each pair, from the first look to the last. Two kinds: *as recorded*, and *arms swapped*,
where a coin says for every stretch which arm is called the canary, so that no difference at all
is left between the arms.
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from moe_serve_demo.scenarios import SCENARIOS
from moe_serve_demo.screen import Screen
from moe_serve_demo.settings import PLAN, DemoSettings
from moe_serve_demo.story import POLICY, Story, settings
from rich.console import Console

from moe_serve.analysis.estimator import estimate
from moe_serve.analysis.judge import judge
from moe_serve.analysis.observations import crossover_table
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import BlockTable
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.finding import QualityFinding, QualityMode
from moe_serve.quality.result import QualityOutcome

RUNS, STRETCH = 1000, 4
# The answers are no part of this: whoever promotes here does so by speed.
SAME = QualityFinding(
    mode=QualityMode.IDENTICAL,
    outcome=QualityOutcome.PASSED,
    reason="taken as passed",
    number=0.0,
    allowed=POLICY.quality_epsilon_nats,
    body={},
)


def record(args: argparse.Namespace) -> None:
    """Run one chapter of the demo for a fixed number of blocks, whatever they show."""
    plan = replace(PLAN, blocks=args.blocks, first_look=args.blocks // 2)
    settings = DemoSettings(
        chapters=SCENARIOS[args.scenario],
        report=args.work.resolve(),
        cache=args.cache.resolve(),
        vllm_python=args.vllm_python.absolute(),
        port=args.port,
        keep=False,
        environment=os.environ,
        plan=plan,
    )
    (outcome,) = Story(settings, Screen(Console(highlight=False))).tell()
    table = crossover_table(outcome.blocks, CellKind.STEP, plan.min_count)
    body = {
        "scenario": args.scenario,
        "blocks": len(outcome.blocks),
        "block_seconds": plan.block_seconds,
        "buckets": [cell.bucket for cell in table.cells],
        "starts": [round(start, 3) for start in table.starts.tolist()],
        "busy": [round(busy, 3) for busy in table.busy.tolist()],
        "log_ratios": [
            [None if np.isnan(value) else round(value, 6) for value in row]
            for row in table.log_ratios.tolist()
        ],
    }
    args.file.write_text(json.dumps(body) + "\n", "utf-8")


def recorded(path: Path) -> BlockTable:
    """The judge's table of a recording."""
    body: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return BlockTable(
        cells=tuple(Cell(kind=CellKind.STEP, layer=None, bucket=at) for at in body["buckets"]),
        starts=np.array(body["starts"]),
        log_ratios=np.array(body["log_ratios"], dtype=float),
        busy=np.array(body["busy"]),
    )


def resampled(
    table: BlockTable, length: int, source: np.random.Generator, *, swapped: bool
) -> BlockTable:
    """One replay of `length` pairs."""
    rows, pairs = [], len(table.starts)
    for _ in range(-(-length // STRETCH)):
        start = int(source.integers(pairs - STRETCH + 1))
        sign = source.choice((-1.0, 1.0)) if swapped else 1.0
        rows.append(sign * table.log_ratios[start : start + STRETCH])
    ratios = np.concatenate(rows)[:length]
    return replace(table, starts=np.arange(float(length)), log_ratios=ratios)


def verdict(table: BlockTable) -> tuple[Verdict, int]:
    """What the demo would have said, and after how many pairs."""
    known = settings(PLAN)
    for count in range(known.interim_analyses.first, known.interim_analyses.last + 1):
        seen = replace(table, starts=table.starts[:count], log_ratios=table.log_ratios[:count])
        found = estimate(seen, CellKind.STEP, known)
        validity = Validity(
            deadline_blocks=known.interim_analyses.last,
            seen_blocks=count,
            block_seconds=2 * (PLAN.block_seconds + PLAN.settle_seconds),
            void_share=0.0,
            void_reasons=(),
            config_differences=(),
            config_digest="",
        )
        said = judge(POLICY, found, found, SAME, validity, settings=known).verdict
        if said in (Verdict.PROMOTE, Verdict.ROLLBACK, Verdict.INVALID):
            return said, count
    return Verdict.KEEP_GOING, known.interim_analyses.last


def replay(args: argparse.Namespace) -> None:
    """Judge many resampled runs of each recording."""
    rows = []
    for path in args.file:
        table, body = recorded(path), json.loads(path.read_text("utf-8"))
        for swapped in (False, True):
            source = np.random.default_rng(20)
            drawn = [
                verdict(resampled(table, PLAN.blocks // 2, source, swapped=swapped))
                for _ in range(args.runs)
            ]
            said = Counter(found.value for found, _ in drawn)
            rows.append(
                {
                    "scenario": body["scenario"],
                    "swapped": swapped,
                    "pairs": len(table.starts),
                    "runs": args.runs,
                    "verdicts": {value.value: said[value.value] for value in Verdict},
                    "median_pairs": float(np.median([count for _, count in drawn])),
                }
            )
    body = {"stretch": STRETCH, "looks": [PLAN.first_look, PLAN.blocks // 2], "rows": rows}
    args.output.write_text(json.dumps(body, indent=1) + "\n", "utf-8")


def main() -> int:
    """Record or replay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("record")
    one.add_argument("--scenario", choices=("noop", "aligned"), required=True)
    one.add_argument("--blocks", type=int, default=240)
    one.add_argument("--file", type=Path, required=True)
    one.add_argument("--work", type=Path, default=Path("demo-recording"))
    one.add_argument("--cache", type=Path, default=Path(".cache"))
    one.add_argument("--vllm-python", type=Path, default=Path(".venv-vllm/bin/python"))
    one.add_argument("--port", type=int, default=18140)
    one.set_defaults(run=record)
    two = verbs.add_parser("replay")
    two.add_argument("--file", type=Path, nargs="+", required=True)
    two.add_argument("--runs", type=int, default=RUNS)
    two.add_argument("--output", type=Path, required=True)
    two.set_defaults(run=replay)
    args = parser.parse_args()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
