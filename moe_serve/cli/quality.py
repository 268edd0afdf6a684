"""`moe-serve quality`: do two servers give the same answers."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.cli.parsing import add_output, at_least, fraction
from moe_serve.cli.quality_inputs import (
    TRAFFIC,
    asked_flags,
    concurrencies,
    positive,
    sizes,
    task,
    texts,
)
from moe_serve.errors import ProbeError, UsageError

if TYPE_CHECKING:
    from moe_serve.probe.run import GateResult
    from moe_serve.probe.server import ProbedServer

EXIT_CODES = {"passed": 0, "failed": 10, "undecided": 20}
_ARMS = ("stable", "canary")


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add `quality probe` and `quality record`."""
    parser.description = "Compares the answers of two servers, whatever their speed."
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_probe(verbs.add_parser("probe", help="does the canary answer as stable does"))
    _add_record(verbs.add_parser("record", help="store what a trusted server answers"))


def _add_probe(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Exit 0: the same answers were shown; 10: they differ; 20: not decided. `identical` "
        "compares log-probabilities, `non-inferior` a task's accuracy."
    )
    parser.add_argument(
        "--stable-url", required=True, metavar="URL", help="server of the stable arm"
    )
    parser.add_argument(
        "--canary-url", required=True, metavar="URL", help="server of the canary arm"
    )
    for arm in _ARMS:
        parser.add_argument(
            f"--{arm}-exporter",
            metavar="URL",
            help=f"the exporter beside {arm}'s server (port 9400): the judge takes a "
            "pass only of arms whose configuration is known",
        )
    parser.add_argument(
        "--traffic-exporter",
        metavar="URL",
        help="of a pod that serves users, for `--concurrency traffic` (default: stable's)",
    )
    parser.add_argument(
        "--mode", choices=("identical", "non-inferior"), default="identical", help="what to show"
    )
    parser.add_argument(
        "--gold",
        type=Path,
        metavar="FILE",
        help="what `quality record` stored of a trusted server (without: stable, now)",
    )
    parser.add_argument(
        "--concurrency",
        type=sizes,
        default=(1, 4, 16, 64),
        metavar="N,N",
        help="requests in flight an arm; `traffic` is the batch size that a pod with traffic is "
        "busiest with; mode non-inferior takes the last (default: 1,4,16,64)",
    )
    parser.add_argument("--rounds", type=at_least(1), default=8, metavar="N", help="at most")
    parser.add_argument(
        "--per-round", type=at_least(2), default=128, metavar="N", help="texts a round and cell"
    )
    parser.add_argument(
        "--epsilon", type=positive, default=0.005, metavar="NATS", help="a token's; still the same"
    )
    parser.add_argument(
        "--alpha", type=fraction, metavar="P", help="level (identical: 0.01, non-inferior: 0.05)"
    )
    parser.add_argument(
        "--margin", type=fraction, default=0.02, help="accuracy that may be lost, fixed beforehand"
    )
    parser.add_argument(
        "--known-bad",
        type=Path,
        metavar="FILE",
        help="stored answers of an arm that is known to be bad: it must fail",
    )
    asked_flags(parser)
    add_output(parser)
    parser.set_defaults(run=_probe)


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.description = "Stores a reference once: texts for `identical`, or answers to a task."
    parser.add_argument("--server", required=True, metavar="URL", help="whose answers")
    parser.add_argument("--file", type=Path, required=True, help="new file; never overwritten")
    parser.add_argument(
        "--mode",
        choices=("identical", "non-inferior"),
        default="identical",
        help="what it is for",
    )
    parser.add_argument(
        "--concurrency", type=at_least(1), default=16, metavar="N", help="requests in flight"
    )
    asked_flags(parser)
    parser.set_defaults(run=_record)


def _probe(args: argparse.Namespace) -> int:
    _require_installed()
    gate = asyncio.run(_asked(args))
    if args.output == "json":
        sys.stdout.write(json.dumps(gate.to_json(), indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.write(f"{gate.outcome.value}: {gate.reason}\n")
        sys.stdout.write(f"counters: {gate.drift.reason}\n")
    return EXIT_CODES[gate.outcome.value]


async def _asked(args: argparse.Namespace) -> "GateResult":
    from moe_serve.probe.exporter import ExporterClient
    from moe_serve.probe.server import ProbedServer

    named = {
        arm: ExporterClient(f"--{arm}-exporter", url)
        if (url := getattr(args, f"{arm}_exporter"))
        else None
        for arm in (*_ARMS, "traffic")
    }
    if lacking := [f"--{arm}-exporter" for arm in _ARMS if named[arm] is None]:
        _tell(f"no {' and no '.join(lacking)}: the judge takes no pass of pods that are not known")
    traffic = None
    if TRAFFIC in args.concurrency:
        exporter = named["traffic"] or named["stable"]
        if exporter is None:
            raise UsageError("--concurrency traffic: needs --traffic-exporter or --stable-exporter")
        traffic = await exporter.traffic()
        _tell(f"traffic: batch {traffic.batch} has {traffic.busy_share:.0%} of the busy time")
    elif named["traffic"] is not None:
        raise UsageError("--traffic-exporter: belongs to `traffic` in --concurrency")
    found = concurrencies(args.concurrency, traffic.batch if traffic else None)
    async with (
        ProbedServer(
            "--stable-url", args.stable_url, top=args.top, exporter=named["stable"]
        ) as stable,
        ProbedServer(
            "--canary-url", args.canary_url, top=args.top, exporter=named["canary"]
        ) as canary,
    ):
        ask = _identical if args.mode == "identical" else _non_inferior
        gate = await ask(args, stable, canary, found)
    return replace(
        gate, details={**gate.details, "traffic": traffic.to_json() if traffic else None}
    )


async def _identical(
    args: argparse.Namespace,
    stable: "ProbedServer",
    canary: "ProbedServer",
    concurrency: Sequence[int],
) -> "GateResult":
    from moe_serve.probe import reference, rounds, run
    from moe_serve.quality.identical import ProbePlan

    return await run.identical(
        stable,
        canary,
        ProbePlan(
            cells=rounds.cells(concurrency),
            rounds=args.rounds,
            epsilon_nats=args.epsilon,
            alpha=0.01 if args.alpha is None else args.alpha,
        ),
        gold=reference.read(args.gold) if args.gold else None,
        texts=texts(args),
        per_round=args.per_round,
        told=_tell,
    )


async def _non_inferior(
    args: argparse.Namespace,
    stable: "ProbedServer",
    canary: "ProbedServer",
    concurrency: Sequence[int],
) -> "GateResult":
    from moe_serve.probe import exams, run
    from moe_serve.quality.noninferior import TaskPlan

    asked = task(args)
    gold, known_bad = (
        exams.read(path, asked) if path else None for path in (args.gold, args.known_bad)
    )
    return await run.non_inferior(
        stable,
        canary,
        asked,
        TaskPlan(
            task=asked.name,
            items=len(asked.items),
            margin=args.margin,
            alpha=0.05 if args.alpha is None else args.alpha,
        ),
        gold=gold,
        known_bad=known_bad,
        concurrency=concurrency[-1],
        chat=args.chat,
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _record(args: argparse.Namespace) -> int:
    _require_installed()
    sys.stdout.write(asyncio.run(_store(args)) + "\n")
    return 0


async def _store(args: argparse.Namespace) -> str:
    from moe_serve.probe import exams, reference, run
    from moe_serve.probe.server import ProbedServer

    if args.file.exists():
        raise UsageError(f"--file {args.file}: exists; a reference is made once, name another")
    async with ProbedServer("--server", args.server, top=args.top) as server:
        if args.mode == "identical":
            made = await run.record(server, texts(args), source=server.url)
            reference.write(args.file, made)
            return f"{args.file}: {len(made.texts)} texts of {server.model}, {made.digest}"
        asked = task(args)
        marked = await exams.mark(server, asked, concurrency=args.concurrency, chat=args.chat)
    if marked.accuracy is None:
        raise ProbeError(f"--server {args.server}: no item was answered")
    exams.write(args.file, asked, marked)
    return (
        f"{args.file}: {len(marked.answers)} of {len(asked.items)} items answered, "
        f"{marked.accuracy:.1%} right, {asked.digest}"
    )


def _require_installed() -> None:
    try:
        import httpx  # noqa: F401
        import prometheus_client  # noqa: F401
        import scipy  # type: ignore[import-untyped]  # noqa: F401  # it ships no types
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; install moe-serve[quality]") from error
