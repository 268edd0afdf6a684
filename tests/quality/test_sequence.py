import numpy as np
import pytest
from scipy.stats import norm, t  # type: ignore[import-untyped]

from moe_serve.errors import UsageError
from moe_serve.quality.sequence import Sequence


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
    half = made.half_width(np.array(1.0), np.array([1, 5, 10_000]), np.array(0.0))
    assert half[0] == np.inf
    assert half[1] == pytest.approx(t.isf(0.05, 4) / np.sqrt(5), rel=1e-3)
    assert half[2] == pytest.approx(norm.isf(0.05) / 100, rel=1e-3)


@pytest.mark.parametrize(("alpha", "looks"), [(0, 1), (0.6, 1), (0.05, 0), (float("nan"), 3)])
def test_a_level_or_number_of_looks_without_meaning_is_refused(alpha: float, looks: int) -> None:
    with pytest.raises(UsageError, match="sequence"):
        Sequence(alpha=alpha, looks=looks)


def test_a_long_tail_on_the_bounds_side_moves_it_out_and_never_in() -> None:
    made = Sequence(alpha=0.01, looks=4)
    lean = np.array([-3.0, 0.0, 3.0])
    half = made.half_width(np.array(1.0), np.array(100.0), lean)
    assert half[0] == half[1] < half[2]


def test_means_of_skewed_clusters_keep_the_level() -> None:
    made, runs, count = Sequence(alpha=0.01, looks=1), 20_000, 256
    drawn = np.random.default_rng(2).lognormal(0, 1, (runs, count))
    mean, spread = drawn.mean(axis=1), drawn.std(axis=1, ddof=1)
    lean = ((drawn - mean[:, None]) ** 3).mean(axis=1) / spread**3
    upper = mean + made.half_width(spread, np.array(float(count)), lean)
    without = mean + made.half_width(spread, np.array(float(count)), np.zeros(runs))
    assert (upper < np.exp(0.5)).mean() < 0.02 < (without < np.exp(0.5)).mean()
