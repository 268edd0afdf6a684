"""The two judges: one asked over HTTP, one that judges here, from Prometheus."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.verdict import Verdict
from moe_serve.controller.judge_json import judge_result_of
from moe_serve.errors import MoeServeError
from moe_serve.judge.watch import ComparisonWatch
from moe_serve.quality.finding import (
    QualityFinding,
    accept_if_bound,
    accept_if_policy,
    accept_if_same_pods,
)
from moe_serve.quality.result import NoQuality
from moe_serve.rollout.observation import JudgeResult, JudgeUnavailable
from moe_serve.rollout.state import RolloutPhase, RolloutState
from moe_serve.sources.port import HistorySource

_LOG = logging.getLogger(__name__)
_ANSWER_SECONDS = 5.0
# Long enough that every pod was scraped in it.
_LEARN_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class RemoteJudge:
    """A judge elsewhere; it is asked in the background, so that nobody waits for it."""

    url: str
    every: float
    fresh_seconds: float
    on_result: Callable[[], None]
    client: httpx.Client = field(
        default_factory=lambda: httpx.Client(timeout=_ANSWER_SECONDS, trust_env=False)
    )
    _judge_result: JudgeResult | JudgeUnavailable = field(
        default_factory=lambda: JudgeUnavailable(reason="not asked yet")
    )

    def judge_result(self, state: RolloutState) -> JudgeResult | JudgeUnavailable:
        """What it said last, as long as that is fresh."""
        del state
        known = self._judge_result
        if isinstance(known, JudgeResult) and time.time() - known.judged_at > self.fresh_seconds:
            return JudgeUnavailable(reason="it judged too long ago")
        return known

    def run(self, stop: threading.Event) -> None:
        """Ask until stopped."""
        while not stop.is_set():
            self.ask()
            stop.wait(self.every)

    def ask(self) -> None:
        """Ask once."""
        before = self._judge_result
        try:
            answer = self.client.get(f"{self.url.rstrip('/')}/v1/verdict")
            answer.raise_for_status()
            body: dict[str, Any] = answer.json()
            self._judge_result = judge_result_of(
                body, now=time.time(), fresh_seconds=self.fresh_seconds
            )
        except Exception as error:  # noqa: BLE001 - no error may end the thread
            self._judge_result = JudgeUnavailable(
                reason=f"{self.url} does not answer ({type(error).__name__})"
            )
        if _differs(before, self._judge_result):
            self.on_result()


def _differs(before: JudgeResult | JudgeUnavailable, after: JudgeResult | JudgeUnavailable) -> bool:
    if isinstance(before, JudgeUnavailable) or isinstance(after, JudgeUnavailable):
        return before != after
    return (before.verdict, before.quality) != (after.verdict, after.quality)


@dataclass(slots=True, kw_only=True)
class LocalJudge:
    """A judge in this process. Its comparison begins with the first step; that time is part of the
    rollout's state, so another controller replays the same comparison from the metrics' store.
    While answers are waited for it asks the store which pods there are, since answers count only
    for those; what it learned counts as long as it is fresh, and is of that wait alone: before a
    hold, or in it, the pods may have been others.
    """

    source: HistorySource
    analysis_plan: AnalysisPlan
    quality: Callable[[], QualityFinding | NoQuality]
    every: float
    on_result: Callable[[], None]
    on_judged: Callable[[Findings], None] | None = None
    clock: Callable[[], float] = time.time
    _watch: ComparisonWatch | None = None
    _wait: tuple[RolloutPhase, float] | None = None
    _waits_since: float = math.inf
    _learned: "_Learned | None" = None
    _fault: str | None = None
    _asked: float = -math.inf
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge_result(self, state: RolloutState) -> JudgeResult | JudgeUnavailable:
        """The last look's verdict; before the steps, the comparison of answers alone."""
        began = self._began(state)
        with self._lock:
            waits = (
                (state.phase, state.phase_since) if state.stage is RolloutPhase.QUALITY else None
            )
            if waits != self._wait:
                self._wait, self._learned, self._fault = waits, None, None
                self._waits_since = self.clock() if waits else math.inf
            if began is None:
                self._watch = None
                return self._answers()
            if self._watch is None or self._watch.started != began:
                self._watch = ComparisonWatch(
                    source=self.source,
                    analysis_plan=self.analysis_plan,
                    quality=self.quality,
                    started=began,
                    clock=self.clock,
                    on_judged=self.on_judged,
                )
            watch = self._watch
        fresh = self.analysis_plan.policy.blind_seconds
        return judge_result_of(watch.answer().to_json(), now=self.clock(), fresh_seconds=fresh)

    def run(self, stop: threading.Event) -> None:
        """Judge until stopped, once a comparison has begun; no error ends it."""
        while not stop.is_set():
            with self._lock:
                watch, since = self._watch, self._waits_since
            if watch is not None:
                watch.judge()
                self.on_result()
            elif (
                self.clock() - self._over >= since and time.monotonic() - self._asked >= self.every
            ):
                self._asked = time.monotonic()
                self.learn()
            stop.wait(self.every if watch is not None else min(1.0, self.every))

    def _began(self, state: RolloutState) -> float | None:
        if state.stage in (RolloutPhase.PENDING, RolloutPhase.QUALITY):
            return None
        if state.comparison_since is not None:
            return state.comparison_since
        # The first look of the steps pins it; until then it is when they began.
        return state.phase_since

    @property
    def _over(self) -> float:
        return max(_LEARN_SECONDS, self.analysis_plan.blocking.window_seconds)

    def learn(self) -> None:
        """Ask the source what the pods say of their configuration now."""
        now = self.clock()
        start = now - self._over
        learned, fault = None, None
        try:
            past = self.source.history(start, now)
            facts = {arm.name: arm.facts for arm in (past.stable, past.canary)}
            learned = _Learned(facts=facts, start=start, at=now)
        except MoeServeError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - a thread that ended would look alive
            _LOG.exception("nothing learned of the pods")
            fault = f"{type(error).__name__}: {error}"
        with self._lock:
            self._learned, self._fault = learned, fault
        self.on_result()

    def _answers(self) -> JudgeResult | JudgeUnavailable:
        if self._fault is not None:
            return JudgeUnavailable(reason=self._fault)
        try:
            found = accept_if_policy(
                self.analysis_plan.policy.quality_policy, self._of_these_pods()
            )
        except MoeServeError as error:
            return JudgeUnavailable(reason=str(error))
        return JudgeResult(
            verdict=Verdict.KEEP_GOING,
            reason="the comparison begins with the first step",
            quality=found.outcome if isinstance(found, QualityFinding) else None,
            quality_reason=found.reason,
            judged_at=self.clock(),
        )

    def _of_these_pods(self) -> QualityFinding | NoQuality:
        found, learned = accept_if_bound(self.quality()), self._learned
        if isinstance(found, NoQuality):
            return found
        if learned is not None and learned.start >= self._waits_since:
            if 0 <= self.clock() - learned.at <= self.analysis_plan.policy.blind_seconds:
                return accept_if_same_pods(found, learned.facts)
            lacks = "nobody could be asked for too long"
        else:
            lacks = "nobody was asked yet"
        return NoQuality(
            reason=f"whether the answers are of these pods is not known: {lacks} "
            f"({found.outcome.value}: {found.reason})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What the pods of each arm said between two times, seconds since the epoch."""

    facts: Mapping[str, Mapping[str, str]]
    start: float
    at: float
