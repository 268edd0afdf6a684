"""What `moe-serve quality` is told: texts, a task, sizes."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.cli.parsing import at_least
from moe_serve.errors import UsageError

if TYPE_CHECKING:
    from moe_serve.probe.run import Texts
    from moe_serve.quality.tasks import Task

TRAFFIC = "traffic"
_TASKS = ("arithmetic", "format", "gsm8k")
_SEED = 20


def asked_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is asked."""
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
    parser.add_argument("--task", choices=_TASKS, default="gsm8k", help="for mode non-inferior")
    parser.add_argument(
        "--task-file", type=Path, metavar="FILE", help="GSM8K's test.jsonl, for --task gsm8k"
    )
    parser.add_argument(
        "--items", type=at_least(1), default=1319, metavar="N", help="questions, fixed beforehand"
    )


def texts(args: argparse.Namespace) -> "Texts":
    """What a reference is made of."""
    from moe_serve.probe import prompts, run

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


def task(args: argparse.Namespace) -> "Task":
    """The task with exact answers."""
    from moe_serve.quality import tasks

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


def sizes(text: str) -> tuple[int | str, ...]:
    """Different whole numbers, and `traffic`."""
    parts = text.split(",")
    known = all(part == TRAFFIC or (part.isdecimal() and int(part) > 0) for part in parts)
    if not known or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; give different whole numbers above 0, or `traffic`, as in "
            "1,4,16,traffic"
        )
    return tuple(part if part == TRAFFIC else int(part) for part in parts)


def concurrencies(named: Sequence[int | str], traffic: int | None) -> list[int]:
    """The sizes in the order they were named; traffic's may be one of the others."""
    found = (traffic if size == TRAFFIC else size for size in named)
    return list(dict.fromkeys(size for size in found if isinstance(size, int)))


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; give a number above 0")
    return value
