"""What both servers' own counters say of their answers: free, so always looked at.

They see NaN where the server counts it, and answers that became longer or end otherwise; they do
not see wrong answers of the usual length. Drift of finish reasons and lengths fails the canary at
level `alpha` a look, shared by both tests; it is meaningful where both arms had like requests.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr  # type: ignore[import-untyped]  # it ships no types
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]

from moe_serve.errors import UsageError
from moe_serve.quality.result import NoQuality, QualityOutcome

CORRUPTED = "vllm:corrupted_requests_total"
FINISHED = "vllm:request_success_total"
LENGTH = "vllm:request_generation_tokens"

Sample = tuple[str, Mapping[str, str], float]  # name, labels, value
_MIN_REQUESTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A server's totals, or what they grew by between two readings.

    `corrupted` is None where the server does not count it. `lengths` are output tokens by the
    upper edge of their bucket, not cumulative; `tokens` is their sum.
    """

    corrupted: float | None
    finished: Mapping[str, float]
    lengths: Mapping[float, float]
    tokens: float

    @property
    def requests(self) -> float:
        """Requests that finished."""
        return sum(self.finished.values())


def counters(samples: Iterable[Sample]) -> Counters | None:
    """Totals over a server's engines; None where it has no such metrics at all."""
    corrupted: list[float] = []
    finished: dict[str, float] = {}
    cumulative: dict[float, float] = {}
    tokens = 0.0
    for name, labels, value in samples:
        if name == CORRUPTED:
            corrupted.append(value)
        elif name == FINISHED:
            reason = labels.get("finished_reason", "")
            finished[reason] = finished.get(reason, 0.0) + value
        elif name == f"{LENGTH}_bucket":
            edge = float(labels["le"])
            cumulative[edge] = cumulative.get(edge, 0.0) + value
        elif name == f"{LENGTH}_sum":
            tokens += value
    if not finished:
        return None
    edges = sorted(cumulative)
    below = [0.0, *(cumulative[edge] for edge in edges)]
    return Counters(
        corrupted=sum(corrupted) if corrupted else None,
        finished=finished,
        lengths={edge: below[at + 1] - below[at] for at, edge in enumerate(edges)},
        tokens=tokens,
    )


def grown(before: Counters, after: Counters) -> Counters | None:
    """What was counted in between; None where a counter fell: the server started anew."""

    def less(old: Mapping[float, float], new: Mapping[float, float]) -> dict[float, float]:
        return {key: value - old.get(key, 0.0) for key, value in new.items()}

    finished = {key: value - before.finished.get(key, 0) for key, value in after.finished.items()}
    lengths = less(before.lengths, after.lengths)
    corrupted = None if after.corrupted is None else after.corrupted - (before.corrupted or 0.0)
    tokens = after.tokens - before.tokens
    if min([*finished.values(), *lengths.values(), corrupted or 0.0, tokens]) < 0:
        return None
    return Counters(corrupted=corrupted, finished=finished, lengths=lengths, tokens=tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Outcome of the counters; the p values are None where there was too little to test."""

    outcome: QualityOutcome
    reason: str
    corrupted: float | None
    requests: tuple[float, float]
    mean_tokens: tuple[float | None, float | None]
    p_finished: float | None
    p_length: float | None

    def to_json(self) -> dict[str, object]:
        """All figures by name; pairs are stable, canary."""
        return {
            "outcome": self.outcome.value,
            "reason": self.reason,
            "corrupted": self.corrupted,
            "requests": list(self.requests),
            "mean_tokens": list(self.mean_tokens),
            "p_finished": self.p_finished,
            "p_length": self.p_length,
        }


def drift(
    stable: Counters | None, canary: Counters | None, *, alpha: float = 0.001
) -> Drift | NoQuality:
    """Compare what both arms counted over the same time.

    Raises:
        UsageError: a level that means nothing.
    """
    if not 0 < alpha < 0.5:
        raise UsageError(f"quality counters: alpha {alpha:g} must lie in (0, 0.5)")
    arms = {"stable": stable, "canary": canary}
    if lacking := [name for name, found in arms.items() if found is None]:
        return NoQuality(reason=f"no counters of {' and '.join(lacking)}, or it started anew")
    assert stable is not None and canary is not None
    ends, length = _p_finished(stable, canary), _p_length(stable, canary)
    outcome, reason = _outcome(stable, canary, ends, length, alpha)
    return Drift(
        outcome=outcome,
        reason=reason,
        corrupted=canary.corrupted,
        requests=(stable.requests, canary.requests),
        mean_tokens=(_told(stable), _told(canary)),
        p_finished=ends,
        p_length=length,
    )


def _outcome(
    stable: Counters, canary: Counters, ends: float | None, length: float | None, alpha: float
) -> tuple[QualityOutcome, str]:
    if canary.corrupted:
        return (
            QualityOutcome.FAILED,
            f"the canary counted {canary.corrupted:.0f} corrupted requests",
        )
    if ends is not None and ends < alpha / 2:
        return QualityOutcome.FAILED, f"the canary's answers end for other reasons (p {ends:.1g})"
    if length is not None and length < alpha / 2:
        return QualityOutcome.FAILED, (
            f"the canary's answers have {_mean(canary):.1f} tokens in the mean, stable's "
            f"{_mean(stable):.1f} (p {length:.1g})"
        )
    if ends is None or length is None:
        least = min(stable.requests, canary.requests)
        return QualityOutcome.UNDECIDED, f"{least:.0f} requests an arm, {_MIN_REQUESTS} are needed"
    unseen = "" if canary.corrupted is not None else "; corrupted requests are not counted there"
    return QualityOutcome.PASSED, f"no drift of finish reasons or lengths{unseen}"


def _p_finished(stable: Counters, canary: Counters) -> float | None:
    if min(stable.requests, canary.requests) < _MIN_REQUESTS:
        return None
    reasons = sorted(stable.finished.keys() | canary.finished.keys())
    table = np.array([[arm.finished.get(key, 0.0) for key in reasons] for arm in (stable, canary)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)


def _p_length(stable: Counters, canary: Counters) -> float | None:
    counts = [sum(arm.lengths.values()) for arm in (stable, canary)]
    if min(counts) < _MIN_REQUESTS:
        return None
    squared = sum(_variance(arm) / n for arm, n in zip((stable, canary), counts, strict=True))
    mean_log_ratio = abs(_mean(canary) - _mean(stable))
    if squared == 0:
        return 1.0 if mean_log_ratio == 0 else 0.0
    return float(2 * ndtr(-mean_log_ratio / math.sqrt(squared)))


def _mean(arm: Counters) -> float:
    count = sum(arm.lengths.values())
    return arm.tokens / count if count else math.nan


def _told(arm: Counters) -> float | None:
    return _mean(arm) if sum(arm.lengths.values()) else None


def _variance(arm: Counters) -> float:
    """At most this: every request at the edge of its bucket that lies farther from the mean."""
    edges, mean = sorted(arm.lengths), _mean(arm)
    last = max((edge for edge in edges if math.isfinite(edge)), default=mean)
    total, low = 0.0, 0.0
    for edge in edges:
        high = edge if math.isfinite(edge) else 2 * last
        total += arm.lengths[edge] * max((high - mean) ** 2, (low - mean) ** 2)
        low = high
    return total / sum(arm.lengths.values())
