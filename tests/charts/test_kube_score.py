"""kube-score on every environment: nothing critical that is not argued in kube_score.yaml."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.charts.environments import DEFAULTS, ENVIRONMENTS, Offer
from tests.charts.rendering import render
from tests.charts.tools import program

pytestmark = pytest.mark.charts

_CRITICAL = 1
ARGUED = yaml.safe_load(Path(__file__).with_name("kube_score.yaml").read_text("utf-8"))


def criticals(offer: Offer) -> set[tuple[str, str]]:
    """Object (chart and kind) and check of whatever kube-score calls critical."""
    objects = render(offer.chart, *offer.files, release=offer.release)
    done = subprocess.run(
        [
            program("kube-score"), "score", "--output-format", "json",
            "--disable-ignore-checks-annotations", "--kubernetes-version", "v1.35", "-",
        ],
        input=yaml.safe_dump_all(list(objects.values())),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        (f"{offer.chart} {scored['type_meta']['kind']}", check["check"]["id"])
        for scored in json.loads(done.stdout)
        for check in scored["checks"] or []
        if check["grade"] == _CRITICAL and not check["skipped"]
    }


def argued() -> set[tuple[str, str]]:
    return {(each, check) for check, told in ARGUED.items() for each in told["objects"]}


@pytest.mark.parametrize("offer", (*DEFAULTS, *ENVIRONMENTS), ids=lambda offer: offer.name)
def test_nothing_is_critical_but_what_is_argued(offer: Offer) -> None:
    assert criticals(offer) - argued() == set()


def test_nothing_is_argued_that_is_not_critical() -> None:
    found = set().union(*(criticals(offer) for offer in (*DEFAULTS, *ENVIRONMENTS)))
    assert argued() - found == set()


def test_every_argument_has_a_reason() -> None:
    assert all(len(told["reason"]) > 40 for told in ARGUED.values())
