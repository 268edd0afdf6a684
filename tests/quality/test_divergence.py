import math
import random

import pytest

from moe_serve.quality.cells import ProbeCell, ProbePath, cell_round
from moe_serve.quality.divergence import Position, Text, common, divergence


def distribution(
    source: random.Random, size: int = 12, like: list[float] | None = None
) -> list[float]:
    logits = [source.gauss(0, 1.5) for _ in range(size)]
    if like is not None:
        logits = [math.log(p) + 0.3 * logit for p, logit in zip(like, logits, strict=True)]
    total = sum(map(math.exp, logits))
    return [math.exp(logit) / total for logit in logits]


def position(p: list[float], token: int, best: int) -> Position:
    order = sorted(range(len(p)), key=lambda at: -p[at])[:best]
    return Position(token, math.log(p[token]), {at: math.log(p[at]) for at in order})


def exact(p: list[float], q: list[float]) -> float:
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))


@pytest.mark.parametrize("best", [0, 1, 3, 12])
@pytest.mark.parametrize("seed", range(5))
def test_over_sampled_tokens_it_is_unbiased_whatever_the_server_tells(best: int, seed: int) -> None:
    source = random.Random(seed)
    p = distribution(source)
    q = distribution(source, like=p)
    mean = sum(
        p[token] * divergence(position(p, token, best), position(q, token, best), sampled=True)
        for token in range(len(p))
    )
    assert mean == pytest.approx(exact(p, q), abs=1e-6)


@pytest.mark.parametrize("best", [1, 3, 12])
def test_over_chosen_tokens_it_is_never_above_the_true_one(best: int) -> None:
    source = random.Random(best)
    p = distribution(source)
    q = distribution(source, like=p)
    found = divergence(position(p, 0, best), position(q, 0, best), sampled=False)
    assert 0 <= found <= exact(p, q) + 1e-9
    if best == 12:
        assert found == pytest.approx(exact(p, q), abs=1e-6)


def test_rounding_noise_enters_squared() -> None:
    source = random.Random(3)
    p = distribution(source)
    q = [value * math.exp(source.gauss(0, 0.02)) for value in p]
    q = [value / sum(q) for value in q]
    assert divergence(position(p, 0, 12), position(q, 0, 12), sampled=True) < 0.001


def test_contexts_are_common_up_to_and_with_the_first_different_token() -> None:
    def text(*tokens: int) -> Text:
        return tuple(Position(token, -1.0, {token: -1.0}) for token in tokens)

    assert common(text(1, 2, 3, 4), text(1, 2, 3, 4), text(1, 2, 9, 4)) == 3
    assert common(text(1, 2, 3), text(1, 2, 3)) == 3
    assert common(text(1, 2, 3), text(1, 2)) == 2


def test_a_round_names_what_it_could_not_score() -> None:
    good = (Position(1, -0.5, {1: -0.5, 2: -1.5}),)
    bad = (Position(1, math.nan, {1: math.nan}),)
    reference = dict.fromkeys(("a", "b", "c", "d"), good)
    found = cell_round(
        ProbeCell(ProbePath.PREFILL, 1),
        reference,
        {"a": good, "b": good, "c": bad},
        {"a": good, "b": bad, "c": good, "d": good},
    )
    assert [(score.prompt_id, score.excess) for score in found.scores] == [("a", 0.0)]
    assert (found.broken, found.stable_broken) == (("b",), ("c",))
    assert found.missing == ("stable: no answer to d",)
    assert found.asked == 4
