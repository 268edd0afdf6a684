"""Are the canary's answers the same as the stable arm's: shown, refuted, or not decided.

Sameness is an equivalence test (the mean absolute difference of log-probabilities is shown to lie
below epsilon), not the absence of a proven difference: too few prompts can never pass.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.quality.answers import Answer, AnswerKind, by_key
from moe_serve.quality.differences import difference
from moe_serve.quality.result import Difference, NoQuality, QualityOutcome, QualityResult

__all__ = ["Answer", "AnswerKind", "NoQuality", "QualityOutcome", "QualityResult", "compare"]

EPSILON_NATS = 0.005
MIN_PROMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One kind of answer: canary against stable, and stable against itself."""

    name: str
    found: Difference | None
    noise: Difference | None


def compare(
    stable: Sequence[Answer],
    canary: Sequence[Answer],
    stable_again: Sequence[Answer] = (),
    *,
    epsilon_nats: float = EPSILON_NATS,
    confidence: float = 0.95,
    min_prompts: int = MIN_PROMPTS,
) -> QualityResult | NoQuality:
    """Compare the arms' answers to the same prompts; `stable_again` gives the noise floor.

    Passed: every kind of answer that was asked has its upper bound below `epsilon_nats`, over at
    least `min_prompts` prompts, and the canary answered every prompt. Failed: a lower bound above
    epsilon that the noise floor does not explain, or a log-probability that is not finite.
    """
    if not (epsilon_nats > 0 and 0.5 < confidence < 1 and min_prompts >= 2):
        raise UsageError(
            "quality: epsilon_nats must be above 0, confidence in (0.5, 1), min_prompts at least 2"
        )
    broken = _not_finite(canary), _not_finite(stable)
    usable = [[a for a in run if _finite(a)] for run in (stable, canary, stable_again)]
    kinds = [kind for kind in AnswerKind if any(a.kind is kind for a in (*stable, *canary))]
    missing: list[str] = []
    parts: dict[AnswerKind, _Part] = {}
    for kind in kinds:
        base, other, again = (
            by_key(run, kind, name)
            for run, name in zip(usable, ("stable", "canary", "stable again"), strict=True)
        )
        missing += _missing(kind, base, other, again, asked_again=bool(stable_again))
        parts[kind] = _part(kind, base, other, again, confidence)
    if not any(part.found for part in parts.values()) and not any(broken):
        return NoQuality(reason="no prompt was answered by both arms")
    outcome, reason = _decide(
        list(parts.values()), broken, missing, epsilon_nats=epsilon_nats, min_prompts=min_prompts
    )
    prefill, decode = (parts.get(kind) for kind in AnswerKind)
    return QualityResult(
        outcome=outcome,
        reason=reason,
        epsilon_nats=epsilon_nats,
        confidence=confidence,
        prefill=prefill.found if prefill else None,
        decode=decode.found if decode else None,
        noise_prefill=prefill.noise if prefill else None,
        noise_decode=decode.noise if decode else None,
        missing=tuple(missing),
    )


def _finite(answer: Answer) -> bool:
    return all(map(math.isfinite, answer.logprobs))


def _not_finite(answers: Sequence[Answer]) -> tuple[str, ...]:
    return tuple(answer.key for answer in answers if not _finite(answer))


def _missing(
    kind: AnswerKind,
    stable: Mapping[str, Answer],
    canary: Mapping[str, Answer],
    again: Mapping[str, Answer],
    *,
    asked_again: bool,
) -> list[str]:
    whole = sorted(stable.keys() | canary.keys())
    runs = [("stable", stable), ("canary", canary)]
    runs += [("stable again", again)] if asked_again else []
    named = [f"{name}: no answer to {key}" for name, run in runs for key in whole if key not in run]
    return named + [
        f"{name}: other tokens than stable's in {key}"
        for name, run in runs[1:]
        for key in _other_tokens(kind, stable, run)
    ]


def _other_tokens(
    kind: AnswerKind, stable: Mapping[str, Answer], run: Mapping[str, Answer]
) -> list[str]:
    # Teacher-forced texts are the caller's: where they differ, nothing can be compared.
    if kind is AnswerKind.GREEDY:
        return []
    both = sorted(stable.keys() & run.keys())
    return [key for key in both if stable[key].token_ids != run[key].token_ids]


def _part(
    kind: AnswerKind,
    stable: Mapping[str, Answer],
    canary: Mapping[str, Answer],
    again: Mapping[str, Answer],
    confidence: float,
) -> _Part:
    def against(run: Mapping[str, Answer]) -> Difference | None:
        left_out = set(_other_tokens(kind, stable, run))
        kept = {key: answer for key, answer in run.items() if key not in left_out}
        return difference(stable, kept, confidence=confidence)

    name = "prefill" if kind is AnswerKind.TEACHER_FORCED else "decode"
    return _Part(name=name, found=against(canary), noise=against(again))


def _decide(
    parts: Sequence[_Part],
    broken: tuple[tuple[str, ...], tuple[str, ...]],
    missing: Sequence[str],
    *,
    epsilon_nats: float,
    min_prompts: int,
) -> tuple[QualityOutcome, str]:
    in_canary, in_stable = broken
    if in_canary:
        return QualityOutcome.FAILED, (
            f"the canary gave log-probabilities that are not finite in {len(in_canary)} answers, "
            f"first {in_canary[0]}"
        )
    refuted = [found for part in parts if (found := _refuted(part, epsilon_nats))]
    if refuted:
        mean_log_ratio = ", ".join(refuted)
        return QualityOutcome.FAILED, f"{mean_log_ratio} nats a token ({epsilon_nats:g} allowed)"
    doubts = [reason for part in parts if (reason := _doubt(part, epsilon_nats, min_prompts))]
    if in_stable:
        doubts.insert(0, f"the stable arm itself gave values that are not finite ({in_stable[0]})")
    lost = [name for name in missing if not name.startswith("stable again")]
    if lost:
        doubts.append(f"{len(lost)} answers are missing, first {lost[0]}")
    if doubts:
        return QualityOutcome.UNDECIDED, "; ".join(doubts)
    shown = ", ".join(
        f"{part.name} at most {part.found.upper:.2g}" for part in parts if part.found is not None
    )
    return QualityOutcome.PASSED, f"nats a token apart: {shown} ({epsilon_nats:g} allowed)"


def _refuted(part: _Part, epsilon_nats: float) -> str | None:
    if part.found is None or part.found.lower <= epsilon_nats or _noisy(part):
        return None
    return f"{part.name} by {part.found.mean_abs_nats:.2g}"


def _noisy(part: _Part) -> bool:
    """The stable arm against itself may differ as much."""
    return (
        part.found is not None
        and part.noise is not None
        and math.isfinite(part.noise.upper)
        and part.noise.upper >= part.found.lower
    )


def _doubt(part: _Part, epsilon_nats: float, min_prompts: int) -> str | None:
    found = part.found
    if found is None:
        return f"{part.name}: no prompt was answered by both arms"
    if found.prompts < min_prompts:
        return f"{part.name}: {found.prompts} prompts, at least {min_prompts} are needed"
    if found.upper < epsilon_nats:
        return None
    if part.noise is not None and part.noise.mean_abs_nats >= epsilon_nats:
        return (
            f"{part.name}: the stable arm differs from itself by {part.noise.mean_abs_nats:.3g} "
            f"nats a token, more than the {epsilon_nats:g} that are to be shown"
        )
    return (
        f"{part.name}: |delta| lies between {found.lower:.3g} and {found.upper:.3g} nats a token; "
        f"it must be shown below {epsilon_nats:g}"
    )
