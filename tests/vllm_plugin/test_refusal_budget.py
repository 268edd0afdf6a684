"""The budget that a refusal names accepts the loss, and is no larger than it has to be."""

from fractions import Fraction

import pytest

from moe_serve.vllm_plugin.session import _above


@pytest.mark.parametrize("percent", range(101))
def test_whole_percent_is_its_own_budget(percent: int) -> None:
    assert f"{_above(percent / 100):g}" == f"{percent / 100:g}"


@pytest.mark.parametrize("whole", [96, 384, 2880, 2944])
def test_budget_accepts_the_loss_and_is_less_than_a_percent_above(whole: int) -> None:
    for lost in range(whole + 1):
        budget = float(f"{_above(lost / whole):g}")
        assert lost / whole <= budget
        assert Fraction(str(budget)) - Fraction(lost, whole) < Fraction(1, 100)
