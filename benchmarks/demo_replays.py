"""How the judge errs on runs of the demo: one long recording, resampled into many short runs.

    python benchmarks/demo_replays.py record --scenario noop --blocks 120 --file noop.json
    python benchmarks/demo_replays.py replay --file noop.json --output benchmarks/results/...

A replay is made of stretches of neighbouring blocks, drawn with replacement, so that
what memory the machine's noise has within a stretch stays. It is judged as the demo judges:
after each block, from the first look to the last. Two kinds: *as recorded*, and *arms swapped*,
where a coin says for every stretch which arm is called the canary, so that no difference at all
is left between the arms.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from moe_serve_demo import host
from moe_serve_demo.demo import PROMPT_SEED
from moe_serve_demo.load import DemoLoad, prompts
from moe_serve_demo.measure import measure, scraper
from moe_serve_demo.scenarios import SCENARIOS
from moe_serve_demo.servers import DemoServer, Place
from moe_serve_demo.serving import Serving

from moe_serve.analysis.checks import check_all
from moe_serve.analysis.estimate import Estimates, NoEstimate
from moe_serve.analysis.estimator import estimate
from moe_serve.analysis.judge import decide
from moe_serve.analysis.observations import observe
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import BlockTable
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.verdict import Verdict
from moe_serve.config.policy_file import parse
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import QualityOutcome
from moe_serve.sources.recorded import RecordedFile

RUNS, STRETCH = 1000, 4
POLICY_FILE = resources.files("moe_serve_demo").joinpath("policies", "identical.yaml")
PLAN = parse(yaml.safe_load(POLICY_FILE.read_text("utf-8")), "the demo's policy")
# The answers are no part of this: whoever promotes here does so by speed.
SAME = QualityFinding(
    mode=PLAN.policy.quality_mode,
    outcome=QualityOutcome.PASSED,
    reason="taken as passed",
    number=0.0,
    allowed=PLAN.policy.quality_epsilon_nats,
    body={},
)
NOT_RUN = NoEstimate(kind=CellKind.STEP, reason="batches with prefill are not replayed", blocks=0)


def record(args: argparse.Namespace) -> None:
    """Measure one chapter of the demo for a fixed number of blocks, whatever they show."""
    plan = replace(PLAN, deadline_seconds=args.blocks * PLAN.blocking.block_seconds)
    table = asyncio.run(_measured(args, plan))
    body = {
        "scenario": args.scenario,
        "blocks": len(table.starts),
        "block_seconds": plan.blocking.block_seconds,
        "buckets": [cell.bucket for cell in table.cells],
        "starts": [round(start, 3) for start in table.starts.tolist()],
        "busy": [round(busy, 3) for busy in table.busy.tolist()],
        "log_ratios": [
            [None if np.isnan(value) else round(value, 6) for value in row]
            for row in table.log_ratios.tolist()
        ],
    }
    args.file.write_text(json.dumps(body) + "\n", "utf-8")


async def _measured(args: argparse.Namespace, plan: AnalysisPlan) -> BlockTable:
    (chapter,), cores = SCENARIOS[args.scenario], host.two_cores()
    model = Serving(python=args.vllm_python.absolute(), environment=os.environ).checkpoint(
        args.cache.resolve() / "models", chapter.intermediate
    )
    args.work.mkdir(parents=True, exist_ok=True)
    servers = [
        DemoServer(
            arm,
            Place(
                vllm_python=args.vllm_python.absolute(),
                model=model,
                port=args.port + number,
                core=cores[number],
                work=args.work.resolve(),
                environment=os.environ,
            ),
        )
        for number, arm in enumerate((chapter.stable, chapter.canary))
    ]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_ready(lambda _: None)
            server.favour_worker()
        source = scraper(*(server.exporter_url for server in servers))
        words = prompts(64, vocabulary=chapter.vocabulary, seed=PROMPT_SEED)
        load = DemoLoad(urls=[server.url for server in servers], prompts=words)
        await measure(servers, source, load, plan, cores=cores, decided=lambda _: False)
    path = args.work / "history.txt"
    source.record(path)
    found = RecordedFile(path=path)
    return observe(found.history(*found.span()), plan).tables[CellKind.STEP]


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
    known = PLAN.settings(1, 1)
    for count in range(known.interim_analyses.first, known.interim_analyses.last + 1):
        seen = replace(table, starts=table.starts[:count], log_ratios=table.log_ratios[:count])
        found = estimate(seen, CellKind.STEP, known)
        validity = Validity(
            deadline_blocks=known.interim_analyses.last,
            seen_blocks=count,
            block_seconds=PLAN.blocking.block_seconds,
            void_share=0.0,
        )
        estimates = Estimates(
            primary_kind=CellKind.STEP, step=found, kernel=found, equal=found, mixed=NOT_RUN
        )
        checks = check_all(PLAN.policy, known, estimates, SAME, validity)
        said = decide(PLAN.policy, known, estimates, checks, SAME, validity).verdict
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
                verdict(resampled(table, PLAN.interim_analyses.last, source, swapped=swapped))
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
    body = {
        "stretch": STRETCH,
        "looks": [PLAN.interim_analyses.first, PLAN.interim_analyses.last],
        "rows": rows,
    }
    args.output.write_text(json.dumps(body, indent=1) + "\n", "utf-8")


def main() -> int:
    """Record or replay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("record")
    one.add_argument("--scenario", choices=("noop", "aligned"), required=True)
    one.add_argument("--blocks", type=int, default=120)
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
