"""One version, one pin: what the charts name is what `images/pins.yaml` and the package say."""

import re
from typing import Any

import yaml

from images import pins
from moe_serve import __version__
from tests.charts.rendering import CHARTS, DEPLOY, render

PINS = pins.load(pins.PINS.read_text("utf-8"))
DEFAULT, TAG = PINS["bases"]["default"], pins.release_tag(PINS, __version__)
JUDGE = {"source.prometheus.url": "http://p:9090"}


def chart(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text("utf-8"))
    return found


def images(name: str) -> set[str]:
    """What a chart's front page on Artifact Hub says that it runs."""
    listed = yaml.safe_load(chart(name)["annotations"]["artifacthub.io/images"])
    return {each["image"] for each in listed}


def test_the_serving_chart_is_the_release_of_the_pinned_image() -> None:
    assert chart("moe-serve")["appVersion"] == TAG
    objects = render("moe-serve")
    serving, ops = objects.server["image"], objects.init("exporter")["image"]
    assert serving == f"ghcr.io/moe-serve/moe-serve:{TAG}"
    assert ops == f"ghcr.io/moe-serve/moe-serve-ops:{__version__}"
    assert images("moe-serve") == {serving, ops}


def test_the_canary_chart_is_the_release_of_the_small_image() -> None:
    assert chart("moe-canary")["appVersion"] == __version__
    pod = render("moe-canary", set=JUDGE).only("Deployment")["spec"]["template"]["spec"]
    assert {pod["containers"][0]["image"]} == images("moe-canary")
    assert images("moe-canary") == {f"ghcr.io/moe-serve/moe-serve-ops:{__version__}"}


def test_the_versions_that_refusals_rest_on_are_those_in_the_pinned_image() -> None:
    given = yaml.safe_load((CHARTS / "moe-serve" / "values.yaml").read_text("utf-8"))["image"]
    assert (given["vllm"], given["aiter"]) == (DEFAULT["vllm"], DEFAULT["aiter"])


def test_every_tag_that_is_written_down_is_the_pinned_one() -> None:
    places = [*DEPLOY.glob("*/moe-serve.yaml"), *DEPLOY.glob("*/pr42098.yaml")]
    places += [*CHARTS.glob("moe-serve/profiles/*.yaml"), CHARTS / "moe-serve" / "README.md.in"]
    written = {
        (str(path.name), tag)
        for path in places
        for tag in re.findall(r"[\w.]+-vllm[\w.]+-rocm[\w.]+", path.read_text("utf-8"))
    }
    assert {tag for _, tag in written} == {TAG}
    for environment in ("staging", "production"):
        serving, judge = (
            yaml.safe_load((DEPLOY / environment / f"{name}.yaml").read_text("utf-8"))
            for name in ("moe-serve", "moe-canary")
        )
        assert serving["opsImage"]["tag"] == judge["image"]["tag"] == __version__
    assert {"moe-serve.yaml", "pr42098.yaml", "README.md.in"} <= {name for name, _ in written}
