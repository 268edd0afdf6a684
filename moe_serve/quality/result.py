"""The outcomes of a comparison of two arms' answers."""

from dataclasses import dataclass
from enum import StrEnum


class QualityOutcome(StrEnum):
    """Passed means that sameness was shown; undecided is no pass."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoQuality:
    """Nothing was compared; that can never promote."""

    reason: str

    def to_json(self) -> dict[str, object]:
        """The verdict's `quality` when there is none."""
        return {"outcome": None, "reason": self.reason}
