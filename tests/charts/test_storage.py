"""No pod may be evicted for filling the volumes that the chart gives it."""

from typing import Any

import pytest

from tests.charts import storage
from tests.charts.environments import ALL, Offer
from tests.charts.rendering import Rendered, refusal, render
from tests.charts.test_serving_pod import containers, pod_specs

MIB, GIB = 1 << 20, 1 << 30
JUDGE = {"source.prometheus.url": "http://p:9090"}


def chart(offer: Offer) -> Rendered:
    return render(offer.chart, *offer.files, release=offer.release)


@pytest.mark.parametrize("offer", ALL, ids=lambda offer: offer.name)
def test_every_pod_may_fill_its_volumes(offer: Offer) -> None:
    """Above the sum of its limits the kubelet evicts a pod, emptyDirs on the disk included."""
    for name, spec in pod_specs(chart(offer)).items():
        assert storage.own(spec) >= 64 * MIB, name
        assert storage.limit(spec, "requests") >= storage.disk_volumes(spec), name


@pytest.mark.parametrize("offer", ALL, ids=lambda offer: offer.name)
def test_every_container_has_a_request_equal_to_its_limit(offer: Offer) -> None:
    """Without a limit of its own a container would live on its neighbours'."""
    for name, spec in pod_specs(chart(offer)).items():
        for each in containers(spec):
            if each["name"] in ("first", "beside"):
                continue  # the user's own
            sizes = [
                each["resources"][kind]["ephemeral-storage"] for kind in ("requests", "limits")
            ]
            assert sizes[0] == sizes[1], (name, each["name"])


def server(**given: Any) -> str:
    values = {name.replace("__", "."): value for name, value in given.items()}
    found: str = render("moe-serve", set=values).server["resources"]["limits"]["ephemeral-storage"]
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "106Gi"),  # 4 of its own, 2 of /tmp, 100 of the cache
        ({"cache__sizeGiB": 200, "tmp__sizeGiB": 8, "resources__ephemeralGiB": 1}, "209Gi"),
        ({"cache__type": "claim", "cache__claim__name": "c"}, "6Gi"),
        ({"shm__sizeGiB": 64}, "106Gi"),  # memory, not disk
        ({"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Gi"}}]}, "107Gi"),
        ({"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": "100Mi"}}]}, "108644Mi"),
        ({"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": "1.5Gi"}}]}, "110080Mi"),
        ({"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": "1G"}}]}, "109498Mi"),
        ({"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": 1073741824}}]}, "107Gi"),
        ({"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": "1e3M"}}]}, None),
        (
            {"extraVolumes": [{"name": "a", "emptyDir": {"sizeLimit": "9Gi", "medium": "Memory"}}]},
            "106Gi",
        ),
        ({"extraVolumes": [{"name": "a", "emptyDir": {}}]}, "106Gi"),
        ({"extraVolumes": [{"name": "a", "configMap": {"name": "c"}}]}, "106Gi"),
    ],
)
def test_the_servers_limit_is_the_sum_of_what_it_may_fill(
    given: dict[str, Any], expected: str | None
) -> None:
    if expected is None:
        values = {name.replace("__", "."): value for name, value in given.items()}
        said = refusal("moe-serve", set=values)
        assert "extraVolumes: emptyDir.sizeLimit 1e3M is not a number with a unit" in said
    else:
        assert server(**given) == expected


def test_the_job_may_fill_its_cache_and_its_tmp() -> None:
    job = render("moe-serve", set={"model.source": "job"}).only("Job")
    [download] = job["spec"]["template"]["spec"]["containers"]
    assert download["resources"]["limits"]["ephemeral-storage"] == "3Gi"


def test_the_judge_may_fill_its_audit_log() -> None:
    spec = render("moe-canary", set={**JUDGE, "audit.size": "10Gi"}).spec
    assert storage.own(spec) == 256 * MIB
    assert storage.disk_volumes(spec) == 10 * GIB + 64 * MIB


def test_an_evicted_pods_limits_are_seen() -> None:
    """The sizes before this rule: 4 GiB and 64 MiB allowed, 102 GiB offered."""
    spec = {
        "initContainers": [
            {"restartPolicy": "Always", "resources": {"limits": {"ephemeral-storage": "64Mi"}}}
        ],
        "containers": [{"resources": {"limits": {"ephemeral-storage": "4Gi"}}}],
        "volumes": [
            {"emptyDir": {"sizeLimit": "100Gi"}},
            {"emptyDir": {"sizeLimit": "2Gi"}},
            {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
        ],
    }
    assert storage.own(spec) == 4 * GIB + 64 * MIB - 102 * GIB
