"""The examples for Argo CD and Flux, and the README's table: what they name exists."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHARTS, DEPLOY, ROOT, render
from tests.charts.test_notes import chart as _chart
from tests.charts.test_notes import notes

README = CHARTS / "moe-serve" / "README.md.in"


def example(path: str, kind: str) -> dict[str, Any]:
    """The object of a kind in an example."""
    documents = yaml.safe_load_all((DEPLOY / path).read_text("utf-8"))
    [found] = [each for each in documents if each["kind"] == kind]
    return dict(found)


def argo() -> tuple[str, str, dict[str, Any]]:
    spec = example("argocd/application.yaml", "Application")["spec"]
    helm = spec["source"]["helm"]
    return helm["releaseName"], spec["source"]["targetRevision"], helm["valuesObject"]


def flux() -> tuple[str, str, dict[str, Any]]:
    release = example("flux/helmrelease.yaml", "HelmRelease")
    version = release["spec"]["chart"]["spec"]["version"]
    return release["metadata"]["name"], version, release["spec"]["values"]


@pytest.mark.parametrize("tool", [argo, flux])
def test_an_examples_values_are_this_charts(tool: Any) -> None:
    release, version, values = tool()
    meta = yaml.safe_load((CHARTS / "moe-serve" / "Chart.yaml").read_text("utf-8"))
    assert version == meta["version"]
    objects = render("moe-serve", set=values, release=release)
    assert objects.server["image"].startswith("registry.example.com/moe-serve/moe-serve:")
    assert "HTTPRoute" not in objects.kinds()


def test_flux_waits_for_a_whole_step() -> None:
    spec = example("flux/helmrelease.yaml", "HelmRelease")["spec"]
    deadline = render("moe-serve").only("Deployment")["spec"]["progressDeadlineSeconds"]
    assert int(spec["timeout"].removesuffix("m")) * 60 > deadline


def test_nothing_that_is_rendered_is_random_or_looked_up() -> None:
    """Argo CD renders without a cluster and compares: each rendering must be the same."""
    for path in sorted(CHARTS.glob("*/templates/**/*")):
        if path.is_file():
            text = path.read_text("utf-8")
            assert not re.search(r"\b(lookup|rand\w+|uuidv4|now|genCA|genSignedCert)\b ", text), (
                path
            )


def rows() -> dict[str, str]:
    """What this chart offers, by feature: the last column of the README's table."""
    section = README.read_text("utf-8").partition("## Beside its peers")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    assert all(len(line) == 6 for line in lines[1:]), [line for line in lines if len(line) != 6]
    return {line[0]: line[-1] for line in lines[1:]}


@pytest.mark.parametrize("feature", rows())
def test_a_feature_is_a_test_or_not_offered(feature: str) -> None:
    ours = rows()[feature]
    if ours.startswith("not offered, because "):
        return
    found = re.fullmatch(r"`(tests/[\w/]+)\.py::(test_\w+)`", ours)
    assert found, ours
    assert Path(ROOT, f"{found[1]}.py").exists()
    assert callable(getattr(importlib.import_module(found[1].replace("/", ".")), found[2]))


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = _chart.__wrapped__(tmp_path_factory)  # type: ignore[attr-defined]
    return found


def test_the_notes_send_the_key_where_one_is_asked_for(chart: Path) -> None:
    text = notes(chart, apiKey__existingSecret="keys")
    assert "get secret keys -o go-template='{{ index .data \"api-key\" | base64decode }}'" in text
    assert '-H "Authorization: Bearer $KEY"' in text
    assert "Authorization" not in notes(chart)


def test_the_notes_call_a_stock_server_one(chart: Path) -> None:
    stock = {"padding__policy": "off", "monitoring__exporter": False, "preflight__enabled": False}
    assert "NOTE: nothing of moe-serve is in these pods" in notes(chart, **stock)
    assert "padding is off" not in notes(chart, **stock)
    assert "WARNING: padding is off" in notes(chart, padding__policy="off")
