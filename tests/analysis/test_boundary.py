"""The joint boundary against simulation with other seeds, and against the confidence sequence."""

import math

import numpy as np
import pytest

from moe_serve.analysis.boundary import (
    InterimAnalyses,
    freedom_of_sum,
    joint_quantile,
    noise_share,
)

LOOKS = InterimAnalyses(first=6, last=72)


@pytest.mark.parametrize("ratio", [0.0, 0.02, 0.3, 5.0])
@pytest.mark.parametrize("freedom", [math.inf, 6.0])
def test_the_quantile_is_exceeded_as_often_as_declared(ratio: float, freedom: float) -> None:
    source = np.random.default_rng(11)
    runs = 8000
    mean = np.cumsum(source.standard_normal((runs, LOOKS.last)), axis=1) / np.arange(1, 73)
    offset = math.sqrt(ratio) * source.standard_normal((runs, 1))
    known = source.chisquare(freedom, (runs, 1)) / freedom if freedom < 99 else np.ones((runs, 1))
    share = np.array([noise_share(count) for count in range(1, 73)])
    score = (offset + mean) / np.sqrt(ratio * known + share)
    worst = score[:, LOOKS.first - 1 :].max(axis=1)
    crossed = float((worst > joint_quantile(ratio, freedom, LOOKS, alpha=0.05)).mean())
    # Four Monte-Carlo errors of 8,000 runs; a ratio between two steps takes the larger quantile.
    assert 0.025 <= crossed <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


def sequence_half_width(count: int, variance: float, *, alpha: float, aim: int = 24) -> float:
    """The asymptotic confidence sequence's half-width for a mean of `count` blocks, one-sided.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Ann. Stat. 2024, with the mixture tuned to be
    tightest at `aim` blocks. Wider than the joint quantile, and valid without a deadline: the
    oracle of ADR 10, which the joint quantile must not exceed.
    """
    tail = 2 * alpha
    log_tail = -2 * math.log(tail)
    rho2 = (log_tail + math.log(log_tail) + 1) / aim
    grown = count * rho2 + 1
    return math.sqrt(2 * grown / (count**2 * rho2) * math.log(math.sqrt(grown) / tail) * variance)


def test_one_look_without_an_offset_is_the_normal_quantile() -> None:
    once = InterimAnalyses(first=9, last=9)
    scaled = joint_quantile(0.0, math.inf, once, alpha=0.05) * math.sqrt(noise_share(9) * 9)
    assert scaled == pytest.approx(1.645, abs=0.03)


def test_more_looks_cost_more_and_less_than_a_sequence_without_a_deadline() -> None:
    few, many = (
        joint_quantile(0.0, math.inf, InterimAnalyses(first=6, last=last), alpha=0.05)
        for last in (12, 72)
    )
    assert few < many
    for count in (12, 24, 72):
        assert many * math.sqrt(noise_share(count)) < sequence_half_width(count, 1.0, alpha=0.05)


def test_the_confidence_sequence_holds_at_every_look() -> None:
    source = np.random.default_rng(3)
    mean = np.cumsum(source.standard_normal((4000, 200)), axis=1) / np.arange(1, 201)
    ends = np.array([sequence_half_width(count, 1.0, alpha=0.05) for count in range(1, 201)])
    assert float((mean > ends).any(axis=1).mean()) <= 0.05


def test_freedom_lies_between_the_parts_and_their_sum() -> None:
    assert freedom_of_sum([(1.0, 6.0), (0.0, 2.0)]) == pytest.approx(6)
    assert freedom_of_sum([(1.0, 6.0), (1.0, 6.0)]) == pytest.approx(12)
    assert math.isinf(freedom_of_sum([(1.0, math.inf)]))
