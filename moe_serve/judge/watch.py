"""Judge a source again and again in the background, and keep the latest answer."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.verdict import Verdict
from moe_serve.errors import MoeServeError
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality
from moe_serve.sources.port import HistorySource

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What the service says: findings, or why there are none."""

    at: float
    findings: Findings | None
    fault: str | None
    audit_fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """`/v1/verdict`: without findings the verdict is KEEP_GOING, and the fault its reason."""
        if self.findings is not None:
            found = self.findings.to_json()
            answers = found["quality"].get("outcome")
            return {
                **found,
                "answers": answers,
                "judged_at": self.at,
                "fault": self.fault,
                "audit_fault": self.audit_fault,
            }
        return {
            "verdict": Verdict.KEEP_GOING.value,
            "reason": self.fault,
            "theta": None,
            "lo": None,
            "hi": None,
            "speedup": None,
            "covered_weight": None,
            "strata": [],
            "quality": {"outcome": None, "reason": "not judged"},
            "answers": None,
            "judged_at": self.at,
            "fault": self.fault,
            "audit_fault": self.audit_fault,
        }


@dataclass(slots=True, kw_only=True)
class ComparisonWatch:
    """One comparison under watch, from `started` on.

    A source that fails leaves the last findings in place and tells its fault beside them; after
    the policy's blind time the verdict is KEEP_GOING for want of data, never one from old data.
    """

    source: HistorySource
    analysis_plan: AnalysisPlan
    quality: Callable[[], QualityFinding | NoQuality]
    started: float
    clock: Callable[[], float] = time.time
    on_judged: Callable[[Findings], None] | None = None
    _answer: Evaluation | None = None
    _judged: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self) -> Evaluation:
        """The latest answer; before the first, and after the blind time, that there is none."""
        now = self.clock()
        with self._lock:
            known = self._answer
        if known is None:
            return Evaluation(at=now, findings=None, fault="not judged yet")
        if now - known.at > self.analysis_plan.policy.blind_seconds:
            fault = f"judged last {now - known.at:.0f} s ago; see the judge's log"
            return replace(known, findings=None, fault=fault)
        return known

    def judge(self) -> Evaluation:
        """Ask the source and judge once; no error ends it."""
        now = self.clock()
        try:
            if now <= self.started:
                raise MoeServeError("the comparison has not started yet")
            findings = examine(
                self.source.history(self.started, now), self.analysis_plan, self.quality()
            )
        except MoeServeError as error:
            _LOG.warning("not judged: %s", error)
            return self._keep(now, None, str(error))
        except Exception as error:  # noqa: BLE001 - a watch that ended would look alive
            _LOG.exception("not judged")
            return self._keep(now, None, f"{type(error).__name__}: {error}")
        return self._keep(now, findings, None, self._recorded(findings))

    def _recorded(self, findings: Findings) -> str | None:
        """Hand the findings on; why that failed. The verdict counts all the same."""
        try:
            if self.on_judged:
                self.on_judged(findings)
        except MoeServeError as error:
            _LOG.warning("verdict not recorded: %s", error)
            return str(error)
        except Exception as error:  # noqa: BLE001 - nothing may keep the verdict back
            _LOG.exception("verdict not recorded")
            return f"{type(error).__name__}: {error}"
        return None

    def _keep(
        self,
        now: float,
        findings: Findings | None,
        fault: str | None,
        audit_fault: str | None = None,
    ) -> Evaluation:
        with self._lock:
            if findings is not None:
                self._judged = now
            elif self._answer is not None:
                fresh = now - self._judged <= self.analysis_plan.policy.blind_seconds
                findings = self._answer.findings if fresh else None
            self._answer = Evaluation(
                at=now, findings=findings, fault=fault, audit_fault=audit_fault
            )
            return self._answer

    def run(self, interval: float, stop: threading.Event) -> None:
        """Judge every `interval` seconds until stopped."""
        while not stop.is_set():
            self.judge()
            stop.wait(interval)
