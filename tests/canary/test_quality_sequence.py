import numpy as np
import pytest
from scipy.stats import norm, t  # type: ignore[import-untyped]

from moe_serve.canary.quality.sequence import Sequence
from moe_serve.errors import UsageError


def test_one_look_is_the_plain_quantile() -> None:
    assert Sequence(alpha=0.05, looks=1).quantile == pytest.approx(norm.isf(0.05), abs=1e-4)


@pytest.mark.parametrize(("looks", "published"), [(2, 2.178), (5, 2.413), (10, 2.555)])
def test_the_boundary_is_the_published_one_of_pocock(looks: int, published: float) -> None:
    assert Sequence(alpha=0.025, looks=looks).quantile == pytest.approx(published, abs=2e-3)


def test_walks_cross_the_boundary_at_the_stated_rate() -> None:
    looks, runs = 30, 40_000
    steps = np.random.default_rng(1).standard_normal((runs, looks)).cumsum(axis=1)
    means = steps / np.sqrt(np.arange(1, looks + 1))
    crossed = (means.max(axis=1) > Sequence(alpha=0.01, looks=looks).quantile).mean()
    assert crossed == pytest.approx(0.01, abs=4 * np.sqrt(0.01 * 0.99 / runs))


def test_few_clusters_pay_by_students_t() -> None:
    made = Sequence(alpha=0.05, looks=1)
    half = made.half_width(np.array(1.0), np.array([1, 5, 10_000]))
    assert half[0] == np.inf
    assert half[1] == pytest.approx(t.isf(0.05, 4) / np.sqrt(5), rel=1e-3)
    assert half[2] == pytest.approx(norm.isf(0.05) / 100, rel=1e-3)


@pytest.mark.parametrize(("alpha", "looks"), [(0, 1), (0.6, 1), (0.05, 0), (float("nan"), 3)])
def test_a_level_or_number_of_looks_without_meaning_is_refused(alpha: float, looks: int) -> None:
    with pytest.raises(UsageError, match="sequence"):
        Sequence(alpha=alpha, looks=looks)
