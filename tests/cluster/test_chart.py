"""The chart with real vLLM in its pods: installed, tested, drained, upgraded, uninstalled."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.charts import RELEASE, SERVER, installed, pods, ready, upgrade
from tests.cluster.cluster import IMAGE, OPS_IMAGE, Cluster
from tests.cluster.node.waiting import wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

LOCAL = ("charts/moe-serve/profiles/cpu-local.yaml", "deploy/local/moe-serve.yaml")
MODEL = "gpt-oss-learned"
START_SECONDS = 580
CLIENT = Path(__file__).with_name("traffic_client.py").read_text("utf-8")
PRE_STOP_SECONDS = 15
# Two pods, streams of 200 tokens, many at once, so that there are some at any moment.
TWO = {
    "replicas": 2,
    "rollout.allowDowntime": False,
    "engine.extraArgs": ["--max-num-seqs=24"],
    "monitoring.rules.enabled": False,
}
THREADS, TOKENS = 24, 200
DELETIONS, STREAMS = 10, 200


def client_pod() -> str:
    confined = {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    container = {
        "name": "client", "image": OPS_IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import signal; signal.sigwait({signal.SIGTERM})"],
        "securityContext": confined,
    }  # fmt: skip
    spec = {
        "containers": [container], "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 2000, "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}
    )


def settled(cluster: Cluster, namespace: str, seconds: int = START_SECONDS) -> None:
    """Wait until the release's pods are all ready; `helm --wait` would not (deploy/README.md)."""
    cluster.kubectl(
        *("rollout", "status", f"deployment/{SERVER}", "--namespace", namespace),
        f"--timeout={seconds}s",
        seconds=seconds + 10,
    )


class Traffic:
    """Requests from a pod of the namespace, in the background."""

    def __init__(
        self, cluster: Cluster, namespace: str, kind: str, where: str, *, threads: int, tokens: int,
        seconds: int,
    ) -> None:  # fmt: skip
        self._told: str = ""
        words = ("python3", "-c", CLIENT, kind, where, MODEL, *map(str, (threads, tokens, seconds)))

        def run() -> None:
            self._told = cluster.kubectl(
                *("exec", "client", "--namespace", namespace, "--", *words), seconds=seconds + 200
            )

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def told(self) -> list[dict[str, Any]]:
        """What became of every request, once all have ended."""
        self._thread.join()
        found: list[dict[str, Any]] = json.loads(self._told)
        return found


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces `restricted`, with a client in it."""
    if cluster.own:
        for image in (IMAGE, OPS_IMAGE):
            cluster.require_image(image)
    with cluster.namespace("chart") as namespace:
        cluster.apply(client_pod(), "--namespace", namespace)
        cluster.kubectl(
            *("wait", "pod/client", "--for=condition=Ready", "--namespace", namespace),
            "--timeout=60s",
            seconds=70,
        )
        yield namespace


# --- one pod, as deploy/local says


@pytest.fixture(scope="module")
def local(cluster: Cluster, place: str) -> Iterator[str]:
    with installed(cluster, place, *LOCAL):
        settled(cluster, place)
        yield place


def test_the_release_passes_its_own_test(cluster: Cluster, local: str) -> None:
    said = cluster.helm("test", RELEASE, "--namespace", local, "--logs", seconds=300)
    results = [line for line in said.splitlines() if line.startswith(("ok", "FAIL"))]
    assert len(results) >= 4, said
    assert not [line for line in results if line.startswith("FAIL")], said


def test_prometheus_has_both_ports_series_with_the_labels_that_the_judge_reads(
    cluster: Cluster, local: str
) -> None:
    [pod] = pods(cluster, local)
    wanted = {
        "namespace": local, "pod": pod["metadata"]["name"], "arm": RELEASE, "model": MODEL,
        "track": "stable",
    }  # fmt: skip
    for metric in (
        "moe_serve_kernel_invocations_total",
        "moe_serve_steps_total",
        "vllm:num_requests_waiting",
    ):
        query = f'{{__name__="{metric}", namespace="{local}"}}'
        series = wait(lambda query=query: cluster.prometheus(query), query, seconds=120, every=1)
        assert {**series[0]["metric"], **wanted} == series[0]["metric"]


def test_the_rules_are_loaded_and_evaluated(cluster: Cluster, local: str) -> None:
    path = "/api/v1/namespaces/monitoring/services/prometheus-operated:9090/proxy/api/v1/rules"

    def groups() -> list[dict[str, Any]] | None:
        data = json.loads(cluster.kubectl("get", "--raw", path))["data"]["groups"]
        ours = [group for group in data if f"{local}-{SERVER}" in group["file"]]
        done = ours and all(
            rule["health"] == "ok" for group in ours for rule in group["rules"]
        )  # "unknown" until the first evaluation
        return ours if done else None

    found = wait(groups, "the rules to be evaluated", seconds=180, every=2)
    rules = [rule for group in found for rule in group["rules"]]
    expected = cluster.get("prometheusrule", SERVER, "--namespace", local)["spec"]["groups"]
    assert len(rules) == sum(len(group["rules"]) for group in expected)
    recorded = f'track_batch:moe_serve_kernel_seconds:mean5m{{namespace="{local}"}}'
    names = {rule["name"] for rule in rules}
    assert {name for name in names if ":" in name}, recorded


# --- two pods, and what happens to streams


@pytest.fixture(scope="module")
def two(cluster: Cluster, local: str) -> str:
    """The same release, with two pods."""
    upgrade(cluster, local, *LOCAL, values=TWO)
    settled(cluster, local)
    return local


def terminated(cluster: Cluster, namespace: str, pod: str) -> float:
    """When the server gets SIGTERM, from when its pod was told to go."""
    metadata = cluster.get("pod", pod, "--namespace", namespace)["metadata"]
    end = datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp()
    return end - float(metadata["deletionGracePeriodSeconds"]) + PRE_STOP_SECONDS


def drained(cluster: Cluster, namespace: str) -> tuple[float, list[dict[str, Any]]]:
    """Delete a ready pod amid streams: when it got SIGTERM, and what became of the streams."""
    pod = next(each for each in pods(cluster, namespace) if ready(each))
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    traffic = Traffic(
        cluster, namespace, "streams", f"{address}:8000", threads=THREADS, tokens=TOKENS, seconds=90
    )
    time.sleep(3)  # streams are under way; nothing is asserted about this moment
    cluster.kubectl("delete", "pod", name, "--namespace", namespace, "--wait=false")
    moment = terminated(cluster, namespace, name)
    return moment, traffic.told()


def decoding(streams: list[dict[str, Any]], moment: float) -> list[dict[str, Any]]:
    """Streams that had begun to answer before the moment and had not ended a second after it."""
    return [
        each
        for each in streams
        if each["first"] and each["first"] < moment and each["ended"] > moment + 1
    ]


def whole(stream: dict[str, Any]) -> bool:
    return (
        stream["error"] is None
        and stream["done"]
        and stream["finish"] == "length"
        and stream["tokens"] == TOKENS
    )


def test_streams_that_decode_when_their_pod_is_told_to_stop_end_whole(
    cluster: Cluster, two: str
) -> None:
    counted = 0
    for _ in range(DELETIONS):
        settled(cluster, two)
        moment, streams = drained(cluster, two)
        caught = decoding(streams, moment)
        assert caught, f"no stream was under way at {moment}"
        assert [each for each in caught if not whole(each)] == []
        counted += len(caught)
    assert counted >= STREAMS


def test_an_upgrade_and_its_rollback_lose_no_request(cluster: Cluster, two: str) -> None:
    settled(cluster, two)
    traffic = Traffic(
        cluster, two, "requests", f"{SERVER}:80", threads=4, tokens=8, seconds=900
    )  # fmt: skip
    changed = {**TWO, "engine.extraArgs": ["--max-num-seqs=24", "--seed=1"]}
    upgrade(cluster, two, *LOCAL, values=changed)
    settled(cluster, two)
    cluster.helm("rollback", RELEASE, "--namespace", two)
    settled(cluster, two)
    finished = time.time()
    told = traffic.told()
    assert [each for each in told if each["error"]] == []
    assert len([each for each in told if each["started"] < finished]) > 200


def test_without_a_drain_streams_are_cut(cluster: Cluster, two: str) -> None:
    upgrade(cluster, two, *LOCAL, values={**TWO, "drain.seconds": 0})
    settled(cluster, two)
    moment, streams = drained(cluster, two)
    caught = [each for each in streams if each["first"] and each["first"] < moment < each["ended"]]
    assert caught
    assert [each for each in caught if not whole(each)]


# --- the end


def left(cluster: Cluster, namespace: str) -> set[str]:
    kinds = (
        "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,networkpolicies,"
        "poddisruptionbudgets,podmonitors,prometheusrules,httproutes,roles,rolebindings"
    )
    names = cluster.kubectl("get", kinds, "--namespace", namespace, "-o", "name").split()
    # What Kubernetes puts into every namespace, and what helm test leaves for its logs.
    return set(names) - {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def test_uninstall_leaves_only_the_claim_with_the_weights(cluster: Cluster, namespace: str) -> None:
    values = {"model.source": "job", "replicas": 0, "engine.extraArgs": ["--seed=1"]}
    with installed(cluster, namespace, *LOCAL, values=values):
        assert len(left(cluster, namespace)) > 5
    wait(
        lambda: left(cluster, namespace) == {f"persistentvolumeclaim/{SERVER}-model"},
        "all but the claim to be gone",
        seconds=120,
    )
