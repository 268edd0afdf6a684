"""Rounds of probes: the same texts to both arms at the same moment, cell by cell."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.probe.reference import Reference, ReferenceText
from moe_serve.probe.server import ProbedServer
from moe_serve.probe.together import together
from moe_serve.quality.cells import CellRound, ProbeCell, ProbePath, cell_round
from moe_serve.quality.divergence import Text
from moe_serve.quality.identical import IdenticalResult, ProbePlan, decide
from moe_serve.quality.result import NoQuality, QualityOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the rounds gave, and what they cost."""

    result: IdenticalResult | NoQuality
    seconds: float
    requests: int


def cells(concurrencies: Sequence[int]) -> tuple[ProbeCell, ...]:
    """Both paths at every concurrency."""
    return tuple(ProbeCell(path, number) for path in ProbePath for number in concurrencies)


async def probe(
    stable: ProbedServer,
    canary: ProbedServer,
    reference: Reference,
    plan: ProbePlan,
    *,
    per_round: int,
    after_round: Callable[[IdenticalResult | NoQuality, float], None],
) -> Probed:
    """Probe until the canary passes or fails, or all planned rounds are done.

    Raises:
        UsageError: a round has fewer texts than the largest concurrency, or more than there are.
    """
    largest = max(cell.concurrency for cell in plan.cells)
    if not largest <= per_round <= len(reference.texts):
        raise UsageError(
            f"--per-round {per_round}: needs at least {largest} (the largest concurrency) and at "
            f"most {len(reference.texts)} (the reference's texts)"
        )
    begun, rounds, requests = time.monotonic(), list[list[CellRound]](), 0
    result: IdenticalResult | NoQuality = NoQuality(reason="no round was probed")
    while len(rounds) < plan.rounds:
        texts = _turn(reference.texts, len(rounds), per_round)
        rounds.append([])
        for cell in plan.cells:
            rounds[-1].append(await _cell(stable, canary, cell, texts))
            result = decide(plan, rounds)
            requests += len(texts)
            # Still one look a cell and round: a failure need not wait for the other cells.
            if isinstance(result, IdenticalResult) and result.outcome is QualityOutcome.FAILED:
                break
        after_round(result, time.monotonic() - begun)
        if isinstance(result, NoQuality) or result.outcome is not QualityOutcome.UNDECIDED:
            break
    return Probed(
        result=result,
        seconds=time.monotonic() - begun,
        requests=requests,
    )


def _turn(texts: Sequence[ReferenceText], number: int, count: int) -> list[ReferenceText]:
    # New prompts each round as long as there are any: only they are new evidence.
    return [texts[(number * count + at) % len(texts)] for at in range(count)]


async def _cell(
    stable: ProbedServer, canary: ProbedServer, cell: ProbeCell, texts: Sequence[ReferenceText]
) -> CellRound:
    gate = asyncio.Semaphore(cell.concurrency)

    async def ask(server: ProbedServer, text: ReferenceText) -> Text | None:
        if cell.path is ProbePath.PREFILL:
            return await server.score(text.prompt, text.sampled)
        return await server.write(text.prompt, tokens=len(text.greedy))

    async def pair(text: ReferenceText) -> tuple[Text | None, Text | None]:
        # One gate for both, so that both arms always hold the same number of requests.
        async with gate:
            one, other = await together(ask(arm, text) for arm in (stable, canary))
            return one, other

    found = await together(map(pair, texts))
    names = [text.prompt_id for text in texts]
    return cell_round(
        cell,
        {text.prompt_id: _wanted(cell.path, text) for text in texts},
        {name: one for name, (one, _) in zip(names, found, strict=True) if one},
        {name: other for name, (_, other) in zip(names, found, strict=True) if other},
    )


def _wanted(path: ProbePath, text: ReferenceText) -> Text:
    return text.sampled if path is ProbePath.PREFILL else text.greedy
