"""How far two runs over the same prompts lie apart, in nats a token, clustered by prompt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy.special import stdtrit  # type: ignore[import-untyped]  # it ships no types

from moe_serve.quality.answers import Answer, AnswerKind
from moe_serve.quality.result import Agreement, Difference, PromptDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """One prompt at one concurrency in both runs, up to where the contexts stay equal."""

    prompt_id: str
    concurrency: int
    deltas: tuple[float, ...]
    diverged_at: int | None
    same_top1: tuple[bool, ...]


def difference(
    first: Mapping[str, Answer], second: Mapping[str, Answer], *, confidence: float
) -> Difference | None:
    """Second run minus first over the keys that both have; None if there is none.

    Greedy texts count up to and including their first different token: that far both arms had the
    same context, so the difference still says something about the arm.
    """
    texts = [_text(first[key], second[key]) for key in sorted(first.keys() & second.keys())]
    if not texts:
        return None
    prompts = _by_prompt(texts)
    absolute = {name: fmean(abs(d) for d in deltas) for name, deltas in prompts.items()}
    half = _half_width(list(absolute.values()), confidence)
    mean = fmean(absolute.values())
    deltas = [d for text in texts for d in text.deltas]
    top1 = [same for text in texts for same in text.same_top1]
    kind = next(iter(first.values())).kind
    return Difference(
        prompts=len(prompts),
        tokens=len(deltas),
        mean_abs_nats=mean,
        lower=mean - half,
        upper=mean + half,
        mean_nats=fmean(fmean(of_prompt) for of_prompt in prompts.values()),
        max_abs_nats=max(abs(d) for d in deltas),
        top1_agreement=fmean(top1) if top1 else None,
        agreement=_agreement(texts) if kind is AnswerKind.GREEDY else (),
        per_prompt=tuple(
            PromptDifference(prompt_id=name, mean_abs_nats=value)
            for name, value in absolute.items()
        ),
    )


def _text(first: Answer, second: Answer) -> _Text:
    together = list(zip(first.token_ids, second.token_ids, strict=False))
    diverged = next((at for at, (one, other) in enumerate(together) if one != other), None)
    if diverged is None and len(first.token_ids) != len(second.token_ids):
        diverged = len(together)
    end = len(together) if diverged is None else min(len(together), diverged + 1)
    logprobs = zip(first.logprobs[:end], second.logprobs[:end], strict=True)
    tops = zip(first.top1 or (), second.top1 or (), strict=False)
    return _Text(
        prompt_id=first.prompt_id,
        concurrency=first.concurrency,
        deltas=tuple(other - one for one, other in logprobs),
        diverged_at=diverged,
        same_top1=tuple(one == other for one, other in tops),
    )


def _by_prompt(texts: Sequence[_Text]) -> dict[str, list[float]]:
    # One prompt at two concurrencies is one cluster: its texts are no independent evidence.
    prompts: dict[str, list[float]] = {}
    for text in texts:
        prompts.setdefault(text.prompt_id, []).extend(text.deltas)
    return prompts


def _half_width(values: Sequence[float], confidence: float) -> float:
    if len(values) < 2:
        return math.inf
    quantile = float(stdtrit(len(values) - 1, confidence))
    return quantile * stdev(values) / math.sqrt(len(values))


def _agreement(texts: Sequence[_Text]) -> tuple[Agreement, ...]:
    made: list[Agreement] = []
    for concurrency in sorted({text.concurrency for text in texts}):
        group = [text for text in texts if text.concurrency == concurrency]
        parted = [text.diverged_at for text in group if text.diverged_at is not None]
        made.append(
            Agreement(
                concurrency=concurrency,
                texts=len(group),
                identical=len(group) - len(parted),
                median_first_divergence=median(parted) if parted else None,
            )
        )
    return tuple(made)
