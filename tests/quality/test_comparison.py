import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.errors import UsageError
from moe_serve.quality.answers import Answer, AnswerKind
from moe_serve.quality.comparison import compare
from moe_serve.quality.result import NoQuality, QualityOutcome, QualityResult
from tests.testing.samples import answers

STABLE = answers()


def compared(
    canary: Sequence[Answer], stable: Sequence[Answer] = STABLE, again: Sequence[Answer] = STABLE
) -> QualityResult:
    made = compare(stable, canary, again)
    assert isinstance(made, QualityResult)
    return made


def test_identical_answers_pass() -> None:
    made = compared(STABLE)
    assert made.outcome is QualityOutcome.PASSED
    assert made.prefill is not None and made.decode is not None
    assert (made.prefill.upper, made.prefill.top1_agreement, made.prefill.prompts) == (0, 1, 24)
    assert (made.decode.prompts, made.missing) == (8, ())
    assert [(a.concurrency, a.share) for a in made.decode.agreement] == [(2, 1.0), (8, 1.0)]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.02, 2.0), st.integers(0, 50))
def test_shifted_answers_fail(shift: float, seed: int) -> None:
    assert compared(answers(shift=shift, noise=1e-4, seed=seed)).outcome is QualityOutcome.FAILED


def test_noise_below_epsilon_passes() -> None:
    made = compared(answers(noise=1e-3, seed=2), again=answers(noise=1e-3, seed=3))
    assert made.outcome is QualityOutcome.PASSED


def test_a_shift_in_decode_alone_fails() -> None:
    shifted = answers(shift=0.1)
    mixed = [
        moved if moved.kind is AnswerKind.GREEDY else same
        for moved, same in zip(shifted, STABLE, strict=True)
    ]
    made = compared(mixed)
    assert made.outcome is QualityOutcome.FAILED
    assert "decode" in made.reason and "prefill" not in made.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_fail(value: float) -> None:
    broken = replace(STABLE[5], logprobs=(value, *STABLE[5].logprobs[1:]))
    made = compared([*STABLE[:5], broken, *STABLE[6:]])
    assert made.outcome is QualityOutcome.FAILED
    assert "not finite in 1 answers, first scored-5 at concurrency 1" in made.reason


def test_a_broken_reference_passes_nobody() -> None:
    broken = replace(STABLE[5], logprobs=(math.nan, *STABLE[5].logprobs[1:]))
    made = compared(STABLE, stable=[*STABLE[:5], broken, *STABLE[6:]])
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "the stable arm itself" in made.reason


def test_missing_prompts_are_named_and_never_pass() -> None:
    made = compared(STABLE[1:])
    assert made.missing == ("canary: no answer to scored-0 at concurrency 1",)
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "1 answers are missing" in made.reason


def test_a_gap_in_the_noise_floor_is_named_but_does_not_block() -> None:
    made = compared(STABLE, again=STABLE[1:])
    assert made.missing == ("stable again: no answer to scored-0 at concurrency 1",)
    assert made.outcome is QualityOutcome.PASSED


def test_other_tokens_in_a_scored_text_are_named() -> None:
    other = replace(STABLE[0], token_ids=(1, *STABLE[0].token_ids[1:]))
    made = compared([other, *STABLE[1:]])
    assert made.missing == ("canary: other tokens than stable's in scored-0 at concurrency 1",)
    assert made.outcome is QualityOutcome.UNDECIDED


def test_a_noise_floor_above_epsilon_is_undecided() -> None:
    made = compared(answers(noise=0.05, seed=2), again=answers(noise=0.05, seed=3))
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "differs from itself" in made.reason


def test_a_difference_far_above_the_noise_floor_still_fails() -> None:
    made = compared(answers(shift=1.0, seed=2), again=answers(noise=0.05, seed=3))
    assert made.outcome is QualityOutcome.FAILED


def test_too_few_prompts_never_pass() -> None:
    few = [answer for answer in STABLE if answer.kind is AnswerKind.GREEDY][:6]
    made = compared(few, stable=few, again=few)
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "3 prompts, at least 8" in made.reason


def test_one_prompt_has_no_bounds_in_json() -> None:
    one = STABLE[:1]
    made = compared(one, stable=one, again=one)
    document = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert (document["prefill"]["lower"], document["prefill"]["upper"]) == (None, None)


def test_nothing_in_common_is_no_quality() -> None:
    assert isinstance(compare(STABLE[:2], STABLE[2:4]), NoQuality)
    assert isinstance(compare((), ()), NoQuality)


def test_greedy_texts_count_up_to_their_first_different_token() -> None:
    def text(tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> Answer:
        return Answer(
            prompt_id="p",
            concurrency=2,
            kind=AnswerKind.GREEDY,
            token_ids=tokens,
            logprobs=logprobs,
        )

    made = compare(
        [text((1, 2, 3, 4), (-1.0, -1.0, -1.0, -1.0))],
        [text((1, 2, 9, 9), (-1.5, -1.0, -1.25, -99.0))],
    )
    assert isinstance(made, QualityResult) and made.decode is not None
    assert (made.decode.tokens, made.decode.mean_abs_nats) == (3, 0.25)
    assert made.decode.agreement[0].median_first_divergence == 2


def test_two_answers_to_one_prompt_are_refused() -> None:
    with pytest.raises(UsageError, match="canary: two teacher_forced answers to scored-0"):
        compare(STABLE, [*STABLE, STABLE[0]])


def test_an_answer_whose_parts_do_not_match_is_refused() -> None:
    with pytest.raises(UsageError, match="scored-0"):
        replace(STABLE[0], logprobs=(1.0,))
