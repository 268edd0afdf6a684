"""Ask arms a task's questions, and keep what a gold or a known-bad arm answered in a file."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.probe.server import ProbedServer
from moe_serve.probe.together import together
from moe_serve.quality.noninferior import Answers, TaskPlan, harmed
from moe_serve.quality.tasks import Item, Task

_KIND = "moe-serve quality answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedAnswers:
    """One arm's marks in one task; an item without an answer is not among them."""

    source: str
    answers: Answers

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None where there are none."""
        return sum(self.answers.values()) / len(self.answers) if self.answers else None


async def mark(server: ProbedServer, task: Task, *, concurrency: int, chat: bool) -> MarkedAnswers:
    """One arm alone on every item."""
    marks = await _marks((server,), task, task.items, concurrency, chat=chat)
    return MarkedAnswers(source=f"{server.name} {server.url}", answers=marks[0])


async def mark_both(
    stable: ProbedServer,
    canary: ProbedServer,
    task: Task,
    plan: TaskPlan,
    *,
    gold: Answers | None,
    concurrency: int,
    chat: bool,
) -> tuple[Answers, Answers]:
    """Both arms at the same moment; stops at the early look if the canary does harm.

    Without a gold's answers stable's own are the baseline of that look.
    """
    early, late = task.items[: plan.early_items], task.items[plan.early_items :]
    arms = stable, canary
    first = await _marks(arms, task, early, concurrency, chat=chat)
    if harmed(plan, first[0] if gold is None else gold, first[1]) or not late:
        return first[0], first[1]
    rest = await _marks(arms, task, late, concurrency, chat=chat)
    return {**first[0], **rest[0]}, {**first[1], **rest[1]}


async def _marks(
    servers: Sequence[ProbedServer],
    task: Task,
    items: Sequence[Item],
    concurrency: int,
    *,
    chat: bool,
) -> list[dict[str, bool]]:
    gate = asyncio.Semaphore(concurrency)

    async def ask(item: Item) -> list[str | None]:
        async with gate:
            questions = (
                server.answer(item.prompt, tokens=task.answer_tokens, chat=chat)
                for server in servers
            )
            return await together(questions)

    texts = await together(map(ask, items))
    return [
        {
            item.item_id: task.right(item, text)
            for item, row in zip(items, texts, strict=True)
            if (text := row[arm]) is not None
        }
        for arm in range(len(servers))
    ]


def write(path: Path, task: Task, marked: MarkedAnswers) -> None:
    """Write an arm's marks; an existing file is never overwritten.

    Raises:
        UsageError: it exists, or cannot be written.
    """
    document = {
        "kind": _KIND,
        "task": task.name,
        "digest": task.digest,
        "source": marked.source,
        "answers": dict(marked.answers),
    }
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
    except FileExistsError as error:
        raise UsageError(f"{path}: exists; name another file") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def read(path: Path, task: Task) -> MarkedAnswers:
    """Read marks of exactly this task.

    Raises:
        UsageError: the file cannot be read, is no such file, or is of other questions.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["kind"] != _KIND or not all(type(v) is bool for v in found["answers"].values()):
            raise ValueError
        digest, source, answers = found["digest"], str(found["source"]), dict(found["answers"])
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: is not a file of {_KIND}") from error
    if digest != task.digest:
        raise UsageError(f"{path}: answers of other questions than {task.name}'s that are asked")
    return MarkedAnswers(source=source, answers=answers)
