"""One question with its answer, and the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class PreflightOutcome(StrEnum):
    """How a question was answered; a skipped one was not asked, and is no pass."""

    OK = "ok"
    FAIL = "FAIL"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightCheck:
    """One question with its answer.

    `detail` of a failed one says what to do, of a skipped one why nobody asked.
    """

    name: str
    outcome: PreflightOutcome
    detail: str

    @property
    def passed(self) -> bool:
        """Whether it was asked and is well."""
        return self.outcome is PreflightOutcome.OK

    def to_json(self) -> dict[str, object]:
        """The form of `preflight --output json`; `passed` is null for what was not asked."""
        passed = None if self.outcome is PreflightOutcome.SKIP else self.passed
        return {
            "name": self.name,
            "outcome": self.outcome.value.lower(),
            "passed": passed,
            "detail": self.detail,
        }


def ok(name: str, detail: str) -> PreflightCheck:
    """A question that was asked and is well."""
    return PreflightCheck(name=name, outcome=PreflightOutcome.OK, detail=detail)


def fail(name: str, detail: str) -> PreflightCheck:
    """A question whose answer stops the pod."""
    return PreflightCheck(name=name, outcome=PreflightOutcome.FAIL, detail=detail)


def skip(name: str, detail: str) -> PreflightCheck:
    """A question that was not asked."""
    return PreflightCheck(name=name, outcome=PreflightOutcome.SKIP, detail=detail)


def all_pass(checks: Sequence[PreflightCheck]) -> bool:
    """Whether none failed and at least one was asked."""
    return any(check.passed for check in checks) and not any(
        check.outcome is PreflightOutcome.FAIL for check in checks
    )


def to_text(checks: Sequence[PreflightCheck]) -> str:
    """The table: outcome, name, detail."""
    width = max((len(check.name) for check in checks), default=0)
    return "".join(
        f"{check.outcome.value:<4}  {check.name:<{width}}  {check.detail}\n" for check in checks
    )
