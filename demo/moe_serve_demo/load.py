"""A closed loop of equal requests to both arms.

Requests go out in waves of eight with answers of three lengths, so that every wave has the same
number of decode steps at each batch size: 8, then 4, then 2.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from moe_serve_demo.errors import DemoError
from moe_serve_demo.servers import MODEL_NAME

PROMPT_TOKENS = 6
WAVE_ANSWER_TOKENS = (4, 4, 4, 4, 8, 8, 16, 16)
# Of a whole answer, on a machine that other programs share.
_ANSWER_SECONDS = 300


def prompts(
    count: int, *, vocabulary: range, seed: int, tokens: int = PROMPT_TOKENS
) -> tuple[tuple[int, ...], ...]:
    """Seeded prompts as token ids, which need no tokenizer."""
    source = random.Random(seed)
    return tuple(tuple(source.choices(vocabulary, k=tokens)) for _ in range(count))


@dataclass(slots=True)
class Progress:
    """The requests and tokens that one arm has answered so far."""

    requests: int = 0
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class DemoLoad:
    """Waves of requests to every arm at the same time."""

    urls: Sequence[str]
    prompts: Sequence[Sequence[int]]
    progress: tuple[Progress, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.progress = tuple(Progress() for _ in self.urls)

    async def run(self) -> None:
        """Send waves until this task is cancelled.

        Raises:
            DemoError: an arm did not answer.
        """
        # A connection per request: uvicorn closes idle ones after 5 s, perhaps just when a slow
        # wave ends and the next request is sent.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(timeout=_ANSWER_SECONDS, limits=limits) as client,
            asyncio.TaskGroup() as arms,
        ):
            for arm in range(len(self.urls)):
                arms.create_task(self._waves(client, arm))

    async def _waves(self, client: httpx.AsyncClient, arm: int) -> None:
        turn = 0
        while True:
            async with asyncio.TaskGroup() as wave:
                for tokens in WAVE_ANSWER_TOKENS:
                    prompt = self.prompts[turn % len(self.prompts)]
                    wave.create_task(self._request(client, arm, prompt, tokens))
                    turn += 1

    async def _request(
        self, client: httpx.AsyncClient, arm: int, prompt: Sequence[int], tokens: int
    ) -> None:
        body = {"prompt": list(prompt), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        answer = await complete(client, self.urls[arm], body)
        self.progress[arm].requests += 1
        self.progress[arm].tokens += int(answer["usage"]["completion_tokens"])


async def complete(client: httpx.AsyncClient, url: str, body: dict[str, object]) -> dict[str, Any]:
    """The JSON answer of one request to `/v1/completions`.

    Raises:
        DemoError: no answer, or not HTTP 200.
    """
    try:
        response = await client.post(f"{url}/v1/completions", json={"model": MODEL_NAME, **body})
    except httpx.HTTPError as error:
        raise DemoError(f"{url}: no answer ({type(error).__name__}: {error})") from error
    if response.status_code != httpx.codes.OK:
        raise DemoError(f"{url}: HTTP {response.status_code}: {response.text[:200]}")
    answer: dict[str, Any] = response.json()
    return answer
