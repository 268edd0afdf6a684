"""One run of the quality gate against two servers, whole: probes or a task, and the counters."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from moe_serve.probe import exams, reference, rounds
from moe_serve.probe.prompts import Prompts, tokenized
from moe_serve.probe.server import ProbedServer
from moe_serve.quality.counters import Counters, Drift, Sample, counters, drift, grown
from moe_serve.quality.finding import QualityMode
from moe_serve.quality.identical import IdenticalResult, ProbePlan
from moe_serve.quality.noninferior import TaskPlan, TaskResult
from moe_serve.quality.noninferior import decide as decide_task
from moe_serve.quality.result import NoQuality, QualityOutcome
from moe_serve.quality.tasks import Task

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What the gate says: the answers' result, and the counters' beside it."""

    result: IdenticalResult | TaskResult | NoQuality
    drift: Drift | NoQuality
    details: dict[str, object]

    @property
    def outcome(self) -> QualityOutcome:
        """The answers decide; counters that fail, fail the canary; they cannot make it pass."""
        if self._drifted:
            return QualityOutcome.FAILED
        return (
            QualityOutcome.UNDECIDED if isinstance(self.result, NoQuality) else self.result.outcome
        )

    @property
    def reason(self) -> str:
        """One line."""
        if self._drifted:
            return f"{self.drift.reason}; answers: {self.result.reason}"
        return self.result.reason

    @property
    def _drifted(self) -> bool:
        return isinstance(self.drift, Drift) and self.drift.outcome is QualityOutcome.FAILED

    def to_json(self) -> dict[str, object]:
        """The whole answer of `quality probe`."""
        found = self.result
        return {
            # Where no answer was had, it still says which question was asked.
            "number": None,
            "traffic": None,
            **self.details,
            **self.result.to_json(),
            "outcome": self.outcome.value,
            "reason": self.reason,
            "at_any_bound": self._drifted
            or (isinstance(found, IdenticalResult) and found.at_any_bound),
            "counters": self.drift.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a reference is made of: prompts, lengths in tokens."""

    prompts: Prompts
    sampled_tokens: int
    greedy_tokens: int
    chat: bool


async def record(server: ProbedServer, texts: Texts, *, source: str) -> reference.Reference:
    """A reference from this server."""
    return await reference.record(
        server,
        await tokenized(server, texts.prompts, chat=texts.chat),
        source=source,
        sampled_tokens=texts.sampled_tokens,
        greedy_tokens=texts.greedy_tokens,
    )


async def identical(
    stable: ProbedServer,
    canary: ProbedServer,
    plan: ProbePlan,
    *,
    gold: reference.Reference | None,
    texts: Texts,
    per_round: int,
    told: Told,
) -> GateResult:
    """Mode `identical`; without a gold the texts are sampled from stable first."""
    begun = time.monotonic()
    if gold is None:
        gold = await record(stable, texts, source="stable, at the start")
        told(f"{time.monotonic() - begun:.0f} s: {len(gold.texts)} texts sampled from stable")
    made = time.monotonic() - begun
    before = await _totals(stable), await _totals(canary)

    def after_round(result: IdenticalResult | NoQuality, seconds: float) -> None:
        told(f"{made + seconds:.0f} s: {result.reason}")

    probed = await rounds.probe(
        stable, canary, gold, plan, per_round=per_round, after_round=after_round
    )
    return GateResult(
        result=probed.result,
        drift=await _drift(stable, canary, before),
        details={
            **await _asked(stable, canary),
            "mode": QualityMode.IDENTICAL.value,
            "allowed": plan.epsilon_nats,
            "alpha": plan.alpha,
            "reference": {"source": gold.source, "model": gold.model, "digest": gold.digest},
            "seconds": round(made + probed.seconds, 1),
            "requests_an_arm": probed.requests,
        },
    )


async def non_inferior(
    stable: ProbedServer,
    canary: ProbedServer,
    task: Task,
    plan: TaskPlan,
    *,
    gold: exams.MarkedAnswers | None,
    known_bad: exams.MarkedAnswers | None,
    concurrency: int,
    chat: bool,
) -> GateResult:
    """Mode `non-inferior`; without a gold's answers stable's own are the baseline."""
    begun = time.monotonic()
    before = await _totals(stable), await _totals(canary)
    first, other = await exams.mark_both(
        stable,
        canary,
        task,
        plan,
        gold=gold.answers if gold else None,
        concurrency=concurrency,
        chat=chat,
    )
    result = decide_task(
        plan,
        gold.answers if gold else first,
        other,
        stable=first,
        known_bad=known_bad.answers if known_bad else None,
    )
    return GateResult(
        result=result,
        drift=await _drift(stable, canary, before),
        details={
            **await _asked(stable, canary),
            "mode": QualityMode.NON_INFERIOR.value,
            "allowed": plan.margin,
            "alpha": plan.alpha,
            "planned_items": plan.items,
            "reference": {
                "source": gold.source if gold else "stable, at the same time",
                "digest": task.digest,
            },
            "seconds": round(time.monotonic() - begun, 1),
        },
    )


async def _asked(stable: ProbedServer, canary: ProbedServer) -> dict[str, object]:
    """When, and of which servers: the judge takes a pass only of those that it judges."""
    for server in (stable, canary):
        await server.unchanged()
    return {
        "at": time.time(),
        "arms": {
            name: {
                "url": server.url,
                "model": server.model,
                "exporter": server.exporter.url if server.exporter else None,
                "facts": dict(server.facts) if server.facts is not None else None,
            }
            for name, server in (("stable", stable), ("canary", canary))
        },
    }


async def _samples(server: ProbedServer) -> list[Sample]:
    try:
        families = list(text_string_to_metric_families(await server.metrics()))
    except ValueError:  # no Prometheus text
        return []
    return [
        (sample.name, sample.labels, sample.value)
        for family in families
        for sample in family.samples
    ]


async def _totals(server: ProbedServer) -> Counters | None:
    return counters(await _samples(server))


async def _drift(
    stable: ProbedServer, canary: ProbedServer, before: tuple[Counters | None, Counters | None]
) -> Drift | NoQuality:
    after = await _totals(stable), await _totals(canary)
    found = [
        grown(old, new) if old and new else None for old, new in zip(before, after, strict=True)
    ]
    return drift(found[0], found[1])
