import difflib

import pytest

from tests.charts.environments import ALL, Offer
from tests.charts.goldens import GOLDEN, golden, path


@pytest.mark.parametrize("offer", ALL, ids=lambda offer: offer.name)
def test_what_is_rendered_is_what_was_reviewed(offer: Offer) -> None:
    before, now = path(offer).read_text("utf-8").splitlines(), golden(offer).splitlines()
    changed = "\n".join(difflib.unified_diff(before, now, str(path(offer).name), "now", n=1))
    assert not changed, f"renew with `make goldens` and review:\n{changed}"


def test_no_golden_is_left_of_an_offer_that_is_gone() -> None:
    assert set(GOLDEN.rglob("*.yaml")) == {path(offer) for offer in ALL}
