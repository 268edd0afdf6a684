"""What the comparison of two arms' answers says. All differences are canary minus stable, in nats.

Prefill is what teacher-forced answers exercise, decode what greedy ones do: their kernels differ,
so an arm may be sound in one and broken in the other.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite


class QualityOutcome(StrEnum):
    """Passed means that sameness was shown; undecided is no pass."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDifference:
    """One prompt: the mean over its tokens of the absolute difference, nats a token."""

    prompt_id: str
    mean_abs_nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Greedy texts at one concurrency: how many are identical, and where the others part.

    `median_first_divergence` counts equal tokens before the first different one, over the texts
    that differ; None if none does.
    """

    concurrency: int
    texts: int
    identical: int
    median_first_divergence: float | None

    @property
    def share(self) -> float:
        """Identical texts over all."""
        return self.identical / self.texts

    def to_json(self) -> dict[str, object]:
        """All figures by name."""
        return {
            "concurrency": self.concurrency,
            "texts": self.texts,
            "identical": self.identical,
            "identical_share": self.share,
            "median_first_divergence": self.median_first_divergence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two runs of the same prompts lie apart, by one kind of answer.

    `mean_abs_nats` averages prompts, each the mean of its tokens; `lower` and `upper` are its
    one-sided bounds by Student's t over prompts (each at the stated confidence).
    """

    prompts: int
    tokens: int
    mean_abs_nats: float
    lower: float
    upper: float
    mean_nats: float
    max_abs_nats: float
    top1_agreement: float | None
    agreement: tuple[Agreement, ...]
    per_prompt: tuple[PromptDifference, ...]

    def to_json(self) -> dict[str, object]:
        """All figures by name, without the single prompts."""
        return {
            "prompts": self.prompts,
            "tokens": self.tokens,
            "mean_abs_nats": self.mean_abs_nats,
            # One prompt alone has no bounds, and JSON has no infinity.
            "lower": self.lower if isfinite(self.lower) else None,
            "upper": self.upper if isfinite(self.upper) else None,
            "mean_nats": self.mean_nats,
            "max_abs_nats": self.max_abs_nats,
            "top1_agreement": self.top1_agreement,
            "greedy": [agreement.to_json() for agreement in self.agreement],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityResult:
    """Do both arms give the same answers, with the stable arm against itself beside it.

    A part is None when no prompt of its kind was answered by both runs. `missing` names every
    prompt that one run lacks; none of them is dropped silently.
    """

    outcome: QualityOutcome
    reason: str
    epsilon_nats: float
    confidence: float
    prefill: Difference | None
    decode: Difference | None
    noise_prefill: Difference | None
    noise_decode: Difference | None
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The verdict's `quality`."""
        uppers = [part.upper for part in (self.prefill, self.decode) if part is not None]
        worst = max(uppers, default=inf)
        return {
            "mode": "identical",
            "outcome": self.outcome.value,
            "reason": self.reason,
            "number": worst if isfinite(worst) else None,
            "allowed": self.epsilon_nats,
            "confidence": self.confidence,
            "prefill": self.prefill.to_json() if self.prefill else None,
            "decode": self.decode.to_json() if self.decode else None,
            "noise_prefill": self.noise_prefill.to_json() if self.noise_prefill else None,
            "noise_decode": self.noise_decode.to_json() if self.noise_decode else None,
            "missing": list(self.missing),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NoQuality:
    """Nothing was compared; that can never promote."""

    reason: str

    def to_json(self) -> dict[str, object]:
        """The verdict's `quality` when there is none."""
        return {"outcome": None, "reason": self.reason}
