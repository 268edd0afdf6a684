"""All that is rendered is valid, field by field, in each Kubernetes from 1.30 and for each CRD."""

import subprocess

import pytest
import yaml

from tests.charts.environments import ALL, Offer
from tests.charts.rendering import render
from tests.charts.tools import program, schemas

pytestmark = pytest.mark.charts

KUBERNETES = tuple(f"1.{minor}.0" for minor in range(30, 38))


def kubeconform(text: str, version: str) -> subprocess.CompletedProcess[str]:
    folder = schemas()
    native = "kubernetes/{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json"
    custom = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
    return subprocess.run(
        [
            program("kubeconform"), "-strict", "-summary",
            "-kubernetes-version", version,
            "-schema-location", f"{folder}/{native}", "-schema-location", f"{folder}/{custom}",
        ],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip


# Kubernetes knows volumes of images from 1.31 on, claims of devices from 1.34 (values.yaml).
YOUNGER = {"everything/moe-serve-claims": 31, "everything/moe-serve-dra": 34}


def rendered(version: str) -> str:
    return yaml.safe_dump_all(
        each
        for offer in ALL
        if int(version.split(".")[1]) >= YOUNGER.get(offer.name, 0)
        for each in render(offer.chart, *offer.files, release=offer.release).values()
    )


@pytest.mark.parametrize("version", KUBERNETES)
def test_everything_rendered_is_valid_in(version: str) -> None:
    done = kubeconform(rendered(version), version)
    assert done.returncode == 0, done.stdout
    assert "Skipped: 0" in done.stdout


def test_the_newest_known_kubernetes_is_among_them() -> None:
    known = (schemas() / "kubernetes").iterdir()
    assert {path.name for path in known} == {f"v{version}" for version in KUBERNETES}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("spec", "template", "spec")),
        ("HTTPRoute", ("spec", "rules", 0)),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0)),
        ("PrometheusRule", ("spec", "groups", 0)),
        ("ScaledObject", ("spec", "scaleTargetRef")),
        ("InferencePool", ("spec", "endpointPickerRef")),
    ],
)
def test_a_mistyped_field_is_seen(kind: str, path: tuple[str | int, ...]) -> None:
    objects = render("moe-serve", "tests/charts/values/moe-serve.yaml")
    manifest = yaml.safe_load(yaml.safe_dump(next(o for k, o in objects.items() if k[0] == kind)))
    place = manifest
    for step in path:
        place = place[step]
    place["mistyped"] = "x"
    done = kubeconform(yaml.safe_dump(manifest), "1.37.0")
    assert done.returncode == 1
    assert "mistyped" in done.stdout


@pytest.mark.parametrize("offer", ALL, ids=lambda offer: offer.name)
def test_helm_4_renders_what_helm_3_renders(offer: Offer) -> None:
    rendered = [
        render(offer.chart, *offer.files, release=offer.release, helm=version) for version in (3, 4)
    ]
    assert rendered[0] == rendered[1]
