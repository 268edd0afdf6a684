"""Ask an arm questions that have one right answer, and count how many it gets right."""

import asyncio
from collections.abc import Mapping

import httpx

from moe_serve.canary.quality.tasks import Item, Task
from moe_serve.demo.load import complete

ITEMS, SEED = 200, 20
ANSWER_TOKENS, CONCURRENCY = 24, 8


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
