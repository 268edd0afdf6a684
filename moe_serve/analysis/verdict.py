"""The judge's answer: four verdicts, the checks behind them, and their JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import assert_never

from moe_serve.analysis.estimate import CellEstimate
from moe_serve.analysis.validity import EvidenceGrade


class Verdict(Enum):
    """What to do with the canary; INVALID says that the comparison itself cannot be trusted."""

    PROMOTE = "PROMOTE"
    ROLLBACK = "ROLLBACK"
    KEEP_GOING = "KEEP_GOING"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """The command line's exit code: 0, 10, 20 or 30."""
        match self:
            case Verdict.PROMOTE:
                return 0
            case Verdict.ROLLBACK:
                return 10
            case Verdict.KEEP_GOING:
                return 20
            case Verdict.INVALID:
                return 30
            case _:
                assert_never(self)


class Severity(StrEnum):
    """A blocking check that fails forbids a promotion; a warning asks for a human's eye."""

    BLOCKING = "blocking"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question that the judge asked, with its number, its threshold and the answer.

    `number` is None when there is no data, which never passes a blocking check.
    """

    name: str
    number: float | None
    threshold: float | None
    passed: bool
    detail: str
    severity: Severity = Severity.BLOCKING

    def to_json(self) -> dict[str, object]:
        """One entry of the verdict's `checks`."""
        return {
            "name": self.name,
            "number": self.number,
            "threshold": self.threshold,
            "passed": self.passed,
            "severity": self.severity.value,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict with all that it rests on.

    `theta`, `lo` and `hi` are log ratios of the policy's primary rate, canary over stable, and
    None when there is no estimate. `above_bound` flags a kernel gain that the bytes cannot explain.
    `source` is the grade of the rates' source, `evidence` that of the comparison with `comparator`.
    """

    verdict: Verdict
    reason: str
    theta: float | None
    lo: float | None
    hi: float | None
    covered_weight: float | None
    strata: tuple[CellEstimate, ...]
    quality: Mapping[str, object]
    evidence: EvidenceGrade
    source: EvidenceGrade
    comparator: str
    analysis_plan_digest: str
    checks: tuple[Check, ...]
    above_bound: bool

    @property
    def speedup(self) -> float | None:
        """Ratio of rates, canary over stable."""
        return None if self.theta is None else math.exp(self.theta)

    @property
    def graded(self) -> str:
        """The evidence in words: its grade, its source, and what the canary is held against."""
        against = f"; against {self.comparator}" if self.comparator else ""
        return f"{self.evidence.value}: {self.source.meaning}{against}"

    def to_json(self) -> dict[str, object]:
        """The body of `/v1/verdict` and of `canary judge --output json`."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "theta": self.theta,
            "lo": self.lo,
            "hi": self.hi,
            "speedup": self.speedup,
            "covered_weight": self.covered_weight,
            "strata": [stratum.to_json() for stratum in self.strata],
            "quality": dict(self.quality),
            "evidence": self.evidence.value,
            **({"comparator": self.comparator} if self.comparator else {}),
            "analysis_plan_digest": self.analysis_plan_digest,
            "above_bound": self.above_bound,
            "checks": [check.to_json() for check in self.checks],
        }
