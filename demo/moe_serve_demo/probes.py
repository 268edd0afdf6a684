"""Ask an arm the fixed questions whose answers the quality comparison needs.

Teacher-forced: every arm scores the same stored tokens (prefill kernels). Greedy: every arm
continues the same prompts by itself, at several concurrencies (decode kernels).
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import httpx

from moe_serve.quality.answers import Answer, AnswerKind
from moe_serve_demo.load import complete, prompts

TEACHER_PROMPTS, TEACHER_TOKENS = 24, 32
GREEDY_PROMPTS, GREEDY_TOKENS = 8, 16
GREEDY_CONCURRENCIES = (2, 8)
_SEED = 20


async def ask(url: str, vocabulary: range) -> tuple[Answer, ...]:
    """All answers of one arm.

    Raises:
        DemoError: the arm did not answer.
    """
    scored = prompts(TEACHER_PROMPTS, vocabulary=vocabulary, seed=_SEED, tokens=TEACHER_TOKENS)
    continued = prompts(GREEDY_PROMPTS, vocabulary=vocabulary, seed=_SEED + 1)
    answers: list[Answer] = []
    async with httpx.AsyncClient(timeout=120) as client:
        answers += await _all(_score(client, url, number, tokens) for number, tokens in _of(scored))
        for concurrency in GREEDY_CONCURRENCIES:
            gate = asyncio.Semaphore(concurrency)
            answers += await _all(
                _continue(client, url, number, tokens, concurrency, gate)
                for number, tokens in _of(continued)
            )
    return tuple(answers)


def _of(texts: Sequence[Sequence[int]]) -> Sequence[tuple[int, list[int]]]:
    return [(number, list(tokens)) for number, tokens in enumerate(texts)]


async def _all(questions: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    return list(await asyncio.gather(*questions))


async def _score(client: httpx.AsyncClient, url: str, number: int, tokens: list[int]) -> Answer:
    body = {"prompt": tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
    answer = await complete(client, url, body)
    # The first token has nothing before it, so it has no log-probability.
    given = answer["choices"][0]["prompt_logprobs"][1:]
    return Answer(
        prompt_id=f"scored-{number}",
        concurrency=1,
        kind=AnswerKind.TEACHER_FORCED,
        token_ids=tuple(tokens[1:]),
        logprobs=tuple(
            at[str(token)]["logprob"] for at, token in zip(given, tokens[1:], strict=True)
        ),
        top1=tuple(_first(at) for at in given),
    )


def _first(candidates: dict[str, dict[str, Any]]) -> int:
    return int(min(candidates, key=lambda token: int(candidates[token]["rank"])))


async def _continue(
    client: httpx.AsyncClient,
    url: str,
    number: int,
    tokens: list[int],
    concurrency: int,
    gate: asyncio.Semaphore,
) -> Answer:
    body = {
        "prompt": tokens,
        "max_tokens": GREEDY_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
    }
    async with gate:
        choice = (await complete(client, url, body))["choices"][0]
    return Answer(
        prompt_id=f"continued-{number}",
        concurrency=concurrency,
        kind=AnswerKind.GREEDY,
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(choice["logprobs"]["token_logprobs"]),
        top1=None,
    )
