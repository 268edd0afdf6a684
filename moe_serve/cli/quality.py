"""`moe-serve quality`: do two servers give the same answers."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.cli.parsing import add_output, at_least, fraction
from moe_serve.errors import ProbeError, UsageError

if TYPE_CHECKING:
    from moe_serve.canary.quality.prober.run import Gate, Texts
    from moe_serve.canary.quality.tasks import Task

EXIT_CODES = {"passed": 0, "failed": 10, "undecided": 20}
TASKS = ("arithmetic", "format", "gsm8k")
_SEED = 20


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
    parser.add_argument("--stable", required=True, metavar="URL", help="the arm that serves now")
    parser.add_argument("--canary", required=True, metavar="URL", help="the arm under test")
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
        type=_sizes,
        default=(1, 4, 16, 64),
        metavar="N,N",
        help="requests in flight an arm; mode non-inferior takes the last (default: 1,4,16,64)",
    )
    parser.add_argument("--rounds", type=at_least(1), default=8, metavar="N", help="at most")
    parser.add_argument(
        "--per-round", type=at_least(2), default=128, metavar="N", help="texts a round and cell"
    )
    parser.add_argument(
        "--epsilon", type=_positive, default=0.005, metavar="NATS", help="a token's; still the same"
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
    _add_asked(parser)
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
    _add_asked(parser)
    parser.set_defaults(run=_record)


def _add_asked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="JSON lines with `prompt` (default: built in)"
    )
    parser.add_argument("--texts", type=at_least(2), default=512, metavar="N", help="how many")
    parser.add_argument(
        "--tokens", type=at_least(1), default=128, metavar="N", help="of a sampled continuation"
    )
    parser.add_argument(
        "--greedy-tokens", type=at_least(1), default=64, metavar="N", help="of a greedy one"
    )
    parser.add_argument(
        "--top", type=at_least(1), default=20, metavar="K", help="log-probabilities a position"
    )
    parser.add_argument("--chat", action="store_true", help="ask in the model's chat format")
    parser.add_argument("--task", choices=TASKS, default="gsm8k", help="for mode non-inferior")
    parser.add_argument(
        "--task-file", type=Path, metavar="FILE", help="GSM8K's test.jsonl, for --task gsm8k"
    )
    parser.add_argument(
        "--items", type=at_least(1), default=1319, metavar="N", help="questions, fixed beforehand"
    )


def _probe(args: argparse.Namespace) -> int:
    _require_installed()
    asked = _identical(args) if args.mode == "identical" else _non_inferior(args)
    gate = asyncio.run(asked)
    if args.output == "json":
        sys.stdout.write(json.dumps(gate.to_json(), indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.write(f"{gate.outcome.value}: {gate.reason}\n")
        sys.stdout.write(f"counters: {gate.drift.reason}\n")
    return EXIT_CODES[gate.outcome.value]


async def _identical(args: argparse.Namespace) -> "Gate":
    from moe_serve.canary.quality.identical import Plan
    from moe_serve.canary.quality.prober import reference, rounds, run
    from moe_serve.canary.quality.prober.server import Server

    plan = Plan(
        cells=rounds.cells(args.concurrency),
        rounds=args.rounds,
        epsilon_nats=args.epsilon,
        alpha=0.01 if args.alpha is None else args.alpha,
    )
    gold = reference.read(args.gold) if args.gold else None
    texts = _texts(args)
    async with (
        Server("--stable", args.stable, top=args.top) as stable,
        Server("--canary", args.canary, top=args.top) as canary,
    ):
        return await run.identical(
            stable,
            canary,
            plan,
            gold=gold,
            texts=texts,
            per_round=args.per_round,
            told=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
        )


async def _non_inferior(args: argparse.Namespace) -> "Gate":
    from moe_serve.canary.quality.noninferior import TaskPlan
    from moe_serve.canary.quality.prober import exams, run
    from moe_serve.canary.quality.prober.server import Server

    task = _task(args)
    plan = TaskPlan(
        task=task.name,
        items=len(task.items),
        margin=args.margin,
        alpha=0.05 if args.alpha is None else args.alpha,
    )
    gold, known_bad = (
        exams.read(path, task) if path else None for path in (args.gold, args.known_bad)
    )
    async with (
        Server("--stable", args.stable, top=args.top) as stable,
        Server("--canary", args.canary, top=args.top) as canary,
    ):
        return await run.non_inferior(
            stable,
            canary,
            task,
            plan,
            gold=gold,
            known_bad=known_bad,
            concurrency=args.concurrency[-1],
            chat=args.chat,
        )


def _record(args: argparse.Namespace) -> int:
    _require_installed()
    sys.stdout.write(asyncio.run(_store(args)) + "\n")
    return 0


async def _store(args: argparse.Namespace) -> str:
    from moe_serve.canary.quality.prober import exams, reference, run
    from moe_serve.canary.quality.prober.server import Server

    if args.file.exists():
        raise UsageError(f"--file {args.file}: exists; a reference is made once, name another")
    async with Server("--server", args.server, top=args.top) as server:
        if args.mode == "identical":
            made = await run.record(server, _texts(args), source=server.url)
            reference.write(args.file, made)
            return f"{args.file}: {len(made.texts)} texts of {server.model}, {made.digest}"
        task = _task(args)
        marked = await exams.mark(server, task, concurrency=args.concurrency, chat=args.chat)
    if marked.accuracy is None:
        raise ProbeError(f"--server {args.server}: no item was answered")
    exams.write(args.file, task, marked)
    return (
        f"{args.file}: {len(marked.answers)} of {len(task.items)} items answered, "
        f"{marked.accuracy:.1%} right, {task.digest}"
    )


def _texts(args: argparse.Namespace) -> "Texts":
    from moe_serve.canary.quality.prober import prompts, run

    found = prompts.from_file(args.prompts) if args.prompts else None
    if found is not None and len(found) < args.texts:
        raise UsageError(f"--prompts {args.prompts}: {len(found)} prompts, --texts is {args.texts}")
    kept = dict(list(found.items())[: args.texts]) if found else None
    return run.Texts(
        prompts=kept or prompts.built_in(args.texts, seed=_SEED),
        sampled_tokens=args.tokens,
        greedy_tokens=args.greedy_tokens,
        chat=args.chat,
    )


def _task(args: argparse.Namespace) -> "Task":
    from moe_serve.canary.quality import tasks

    if (args.task == "gsm8k") != bool(args.task_file):
        raise UsageError("--task-file: belongs to --task gsm8k, and is needed for it")
    if args.task == "arithmetic":
        return tasks.arithmetic(args.items, seed=_SEED)
    if args.task == "format":
        return tasks.formats(args.items, seed=_SEED)
    try:
        lines = args.task_file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--task-file {args.task_file}: cannot be read ({error})") from error
    return tasks.gsm8k(lines, source=str(args.task_file), limit=args.items)


def _require_installed() -> None:
    try:
        import httpx  # noqa: F401
        import prometheus_client  # noqa: F401
        import scipy  # type: ignore[import-untyped]  # noqa: F401  # it ships no types
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; install moe-serve[quality]") from error


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(set(parts)) < len(
        parts
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; give different whole numbers above 0, as in 1,4,16"
        )
    return tuple(int(part) for part in parts)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; give a number above 0")
    return value
