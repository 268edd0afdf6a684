import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from moe_serve.errors import UsageError
from moe_serve.quality.paired import interval, mcnemar_exact, power, score


@pytest.mark.parametrize(
    ("items", "margin", "difference", "stated"),
    [(1319, 0.02, 0.0, 0.91), (1319, 0.01, 0.0, 0.44), (1319, 0.02, -0.0008, 0.88)],
)
def test_the_stated_power_at_six_percent_discordant(
    items: int, margin: float, difference: float, stated: float
) -> None:
    found = power(items=items, margin=margin, discordant=0.06, difference=difference)
    assert found == pytest.approx(stated, abs=0.015)


def test_at_the_margin_itself_the_level_is_kept() -> None:
    for items in (250, 1319):
        found = power(items=items, margin=0.02, discordant=0.06, difference=-0.02)
        assert found < 0.055


def test_power_is_what_simulated_arms_show() -> None:
    source = np.random.default_rng(1)
    drawn = source.multinomial(400, [0.03, 0.03, 0.94], size=2000)
    passed = [interval(int(lost), int(won), 400, alpha=0.05)[0] > -0.03 for lost, won, _ in drawn]
    assert np.mean(passed) == pytest.approx(
        power(items=400, margin=0.03, discordant=0.06), abs=0.045
    )


def test_the_score_uses_the_likeliest_shares_under_the_difference() -> None:
    lost, won, items, difference = 9, 4, 60, -0.15

    def unlikelihood(share: float) -> float:
        rest = 1 - 2 * share - difference
        return -(
            lost * math.log(share)
            + won * math.log(share + difference)
            + (items - lost - won) * math.log(rest)
        )

    best = minimize_scalar(unlikelihood, bounds=(0.1501, 0.57), method="bounded").x
    variance = items * (2 * best + difference - difference**2)
    wanted = (won - lost - items * difference) / math.sqrt(variance)
    found = score(np.array(float(lost)), np.array(float(won)), items, difference)
    assert float(found) == pytest.approx(wanted, abs=1e-4)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 100))
def test_the_interval_holds_the_difference_and_turns_with_the_arms(
    lost: int, won: int, same: int
) -> None:
    items = lost + won + same
    low, high = interval(lost, won, items, alpha=0.05)
    assert -1 <= low <= (won - lost) / items <= high <= 1
    turned = interval(won, lost, items, alpha=0.05)
    assert (-turned[1], -turned[0]) == pytest.approx((low, high), abs=1e-6)


def test_no_difference_at_all_still_has_an_interval() -> None:
    low, high = interval(0, 0, 100, alpha=0.025)
    assert (low, high) == (pytest.approx(-0.037, abs=1e-3), pytest.approx(0.037, abs=1e-3))


def test_mcnemar_is_the_exact_binomial() -> None:
    assert mcnemar_exact(5, 0) == pytest.approx(1 / 32)
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(0, 5) == 1


def test_counts_that_do_not_fit_are_refused() -> None:
    for lost, won, items in ((3, 3, 5), (-1, 2, 5), (0, 0, 0)):
        with pytest.raises(UsageError, match="paired answers"):
            interval(lost, won, items, alpha=0.05)
    with pytest.raises(UsageError, match="power"):
        power(items=100, margin=0.02, discordant=0.01, difference=0.02)
