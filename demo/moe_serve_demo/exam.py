"""Ask both arms questions that have one right answer, and count how many they get right."""

import asyncio
from collections.abc import Mapping

import httpx

from moe_serve.quality.noninferior import paired
from moe_serve.quality.tasks import Item, Task, formats
from moe_serve.report.data import Exam
from moe_serve_demo.errors import DemoError
from moe_serve_demo.load import complete

ITEMS, SEED = 200, 20
ANSWER_TOKENS, CONCURRENCY = 24, 8


async def compare(stable: str, canary: str) -> Exam:
    """Ask both arms the same questions at the same time.

    Raises:
        DemoError: an arm did not answer.
    """
    task = formats(ITEMS, seed=SEED)
    marks = await asyncio.gather(examine(stable, task), examine(canary, task))
    found = paired(*marks, alpha=0.05)
    if found is None:
        raise DemoError(f"{stable} and {canary}: no question was asked")
    return Exam(
        task=task.name,
        items=found.items,
        stable=sum(marks[0].values()),
        canary=sum(marks[1].values()),
        lost=found.lost,
        won=found.won,
        p_not_worse=found.p_not_worse,
    )


async def examine(url: str, task: Task) -> Mapping[str, bool]:
    """Whether each item's greedy answer is right.

    Raises:
        DemoError: the arm did not answer.
    """
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(client: httpx.AsyncClient, item: Item) -> bool:
        body = {"prompt": item.prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0}
        async with gate:
            text = (await complete(client, url, body))["choices"][0]["text"]
        return task.right(item, text)

    async with httpx.AsyncClient(timeout=120) as client:
        marks = await asyncio.gather(*(ask(client, item) for item in task.items))
    return {item.item_id: right for item, right in zip(task.items, marks, strict=True)}
