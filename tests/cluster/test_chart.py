"""The chart with real vLLM in its pods: installed, tested, drained, upgraded, uninstalled."""

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.charts import RELEASE, ROOT, SERVER, counted, installed, pods, ready, upgrade
from tests.cluster.cluster import OPS_IMAGE, Cluster
from tools.node.errors import CommandFailed
from tools.node.waiting import wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

LOCAL = ("charts/moe-serve/profiles/cpu-local.yaml", "deploy/local/moe-serve.yaml")
OTHER = "gptoss-2"
MODEL = "gpt-oss-learned"
START_SECONDS = 580
CLIENT = Path(__file__).with_name("traffic_client.py").read_text("utf-8")
PRE_STOP_SECONDS = 15
# An update replaces one of two pods while both new ones start: starts are what takes time here.
TWO: dict[str, Any] = {
    "replicas": 2,
    "rollout": {"allowDowntime": False, "maxSurge": 1, "maxUnavailable": 1},
    "monitoring.rules.enabled": False,
    # Room for streams of many seconds.
    "drain.seconds": 240,
    "engine.extraArgs": ["--max-model-len=4096", "--stream-interval=10"],
}
CHANGED = {**TWO, "engine.extraArgs": [*TWO["engine.extraArgs"], "--seed=1"]}
# As many streams at once as the profile's server takes, with much left to tell when SIGTERM comes.
THREADS, TOKENS = 32, 2400
ENOUGH = 24
SHORT_DRAIN_SECONDS = 2
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


def settled(cluster: Cluster, namespace: str, release: str = RELEASE) -> None:
    """Wait until the release's pods are all ready; `helm --wait` would not (deploy/README.md)."""
    cluster.kubectl(
        *("rollout", "status", f"deployment/{release}-moe-serve", "--namespace", namespace),
        f"--timeout={START_SECONDS}s",
        seconds=START_SECONDS + 10,
    )


class Traffic:
    """Requests from a pod of the namespace, in the background."""

    def __init__(
        self, cluster: Cluster, namespace: str, kind: str, where: str, *, threads: int, tokens: int,
        seconds: int,
    ) -> None:  # fmt: skip
        self._inside = ("exec", "client", "--namespace", namespace, "--", "python3", "-c")
        self._cluster = cluster
        self._end = f"/dev/shm/{secrets.token_hex(4)}"  # a file that ends it
        self._told = ""
        words = (kind, where, MODEL, *map(str, (threads, tokens, seconds)), self._end)

        def run() -> None:
            self._told = cluster.kubectl(*self._inside, CLIENT, *words, seconds=seconds + 400)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def end(self) -> "Traffic":
        """Ask nothing more."""
        self._cluster.kubectl(*self._inside, f"open({self._end!r}, 'w')")
        return self

    def told(self) -> list[dict[str, Any]]:
        """What became of every request, once all have ended."""
        self._thread.join()
        found: list[dict[str, Any]] = json.loads(self._told)
        return found


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace that enforces `restricted`, with a client in it."""
    cluster.require_images()
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
    # Before the release: the operator's Prometheus may take minutes to see one more change.
    cluster.apply(plain_scrape(), "--namespace", place)
    with installed(cluster, place, *LOCAL):
        settled(cluster, place)
        yield place


def helm_test(cluster: Cluster, namespace: str, release: str) -> list[str]:
    """What `helm test` found, a line for each."""
    said = cluster.helm("test", release, "--namespace", namespace, "--logs", seconds=300)
    results = [line for line in said.splitlines() if line.startswith(("ok", "FAIL"))]
    assert not [line for line in results if line.startswith("FAIL")], said
    return results


@pytest.mark.smoke
def test_the_release_passes_its_own_test(cluster: Cluster, local: str) -> None:
    assert len(helm_test(cluster, local, RELEASE)) >= 4


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


def test_the_judge_passes_its_own_test(cluster: Cluster, local: str) -> None:
    # What it is to find; the operator's Prometheus may take minutes to see it.
    query = f'moe_serve_steps_total{{namespace="{local}", track="stable"}}'
    wait(lambda: cluster.prometheus(query), query, seconds=120, every=1)
    values = {"source.prometheus.selector": f'namespace="{local}"'}
    judge = {"release": "judge", "chart": "moe-canary", "values": values}
    with installed(cluster, local, "deploy/local/moe-canary.yaml", **judge):
        cluster.kubectl(
            *("rollout", "status", "deployment/judge-moe-canary", "--namespace", local),
            "--timeout=120s",
            seconds=130,
        )
        assert len(helm_test(cluster, local, "judge")) == 4


def test_a_prometheus_without_the_operator_finds_the_same_targets_and_labels(
    cluster: Cluster, local: str
) -> None:
    names = ("namespace", "pod", "node", "model", "arm", "track")
    found = []
    for job in (f"scrapeConfig/{local}/plain", f"{local}/{SERVER}"):
        query = f'count by (job, {", ".join(names)}) ({{namespace="{local}", job="{job}"}})'
        series = wait(lambda query=query: cluster.prometheus(query), query, seconds=120, every=1)
        found.append([{name: each["metric"].get(name) for name in names} for each in series])
    assert found[0] == found[1]
    assert len(found[0]) == 1


def plain_scrape() -> str:
    """The first job of the example of a configuration, as the operator has it written."""
    configuration = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yaml").read_text("utf-8"))
    job = configuration["scrape_configs"][0]
    assert job["kubernetes_sd_configs"] == [{"role": "endpointslice"}]
    spellings = {"source_labels": "sourceLabels", "target_label": "targetLabel"}
    relabelings = [
        {spellings.get(key, key): value for key, value in rule.items()}
        for rule in job["relabel_configs"]
    ]
    spec = {"kubernetesSDConfigs": [{"role": "EndpointSlice"}], "relabelings": relabelings}
    return json.dumps(
        {
            "apiVersion": "monitoring.coreos.com/v1alpha1", "kind": "ScrapeConfig",
            "metadata": {"name": "plain"}, "spec": spec,
        }
    )  # fmt: skip


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A pod that was told to stop: when its server got SIGTERM, and the streams that it had."""

    release: str
    sigterm: float
    streams: list[dict[str, Any]]

    def caught(self) -> list[dict[str, Any]]:
        """Those that had begun to answer before SIGTERM, and had not ended a second after it.

        The second is what the API server rounds a pod's deletion to.
        """
        return [each for each in self._begun() if each["ended"] > self.sigterm + 1]

    def broken(self) -> list[dict[str, Any]]:
        """Those that had begun before SIGTERM and did not end whole."""
        return [
            each
            for each in self._begun()
            if each["error"]
            or not each["done"]
            or (each["finish"], each["tokens"]) != ("length", TOKENS)
        ]

    def seen(self) -> str:
        """When they began and ended, in seconds after SIGTERM, and what they said."""
        begun = [each["first"] for each in self.streams if each["first"]]
        firsts, ends = (
            sorted(round(each - self.sigterm) for each in times)
            for times in (begun, [each["ended"] for each in self.streams])
        )
        errors = Counter(each["error"] for each in self.streams)
        return f"{self.release}: began {firsts}, ended {ends}, {dict(errors)}"

    def _begun(self) -> list[dict[str, Any]]:
        return [each for each in self.streams if each["first"] and each["first"] < self.sigterm]


def streams_to(cluster: Cluster, namespace: str, pod: dict[str, Any], *, seconds: int) -> Traffic:
    """As many streams as its server takes, anew for so many seconds or until it takes no more."""
    where = f"{pod['status']['podIP']}:8000"
    return Traffic(
        cluster, namespace, "streams", where, threads=THREADS, tokens=TOKENS, seconds=seconds
    )


def sigterm(pod: dict[str, Any]) -> float:
    """When the server of a pod that was told to stop gets SIGTERM."""
    metadata = pod["metadata"]
    end = datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp()
    return end - float(metadata["deletionGracePeriodSeconds"]) + PRE_STOP_SECONDS


class Watch:
    """Streams to every pod that an update tells to stop, from the moment that it is told.

    Its server goes on taking requests while the pod's hook sleeps, so they are under way when
    SIGTERM comes; and no stream takes the CPU from a pod that starts.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._found: dict[str, tuple[float, Traffic]] = {}
        # Pods of an earlier step that are on their way out already; nobody saw them told.
        self._before = {
            pod["metadata"]["name"]
            for pod in pods(cluster, namespace)
            if "deletionTimestamp" in pod["metadata"]
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def stopped(self) -> list[Stopped]:
        """Every pod that was told to stop, once its streams have ended."""
        return [
            Stopped(release=RELEASE, sigterm=when, streams=streams.told())
            for when, streams in self._found.values()
        ]

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(0.5)
            for pod in pods(self._cluster, self._namespace):
                self._note(pod)

    def _note(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        known = {*self._before, *self._found}
        if "deletionTimestamp" not in metadata or metadata["name"] in known:
            return
        streams = streams_to(self._cluster, self._namespace, pod, seconds=60)
        self._found[metadata["name"]] = (sigterm(pod), streams)


def deleted(cluster: Cluster, namespace: str, *releases: str) -> list[Stopped]:
    """All ready pods of the releases, told to stop at once, amid streams."""
    found = {
        pod["metadata"]["name"]: (release, streams_to(cluster, namespace, pod, seconds=300))
        for release in releases
        for pod in pods(cluster, namespace, release)
        if ready(pod)
    }
    # Most under way before the pods that take their place want the CPU; a server that has little of
    # it itself takes them one by one, and never all at a time.
    metric = "vllm:num_requests_running"
    wait(
        lambda: all(counted(cluster, namespace, name, metric) >= ENOUGH for name in found),
        f"the streams to {', '.join(found)} to begin",
        seconds=240,
        every=1,
    )
    cluster.kubectl("delete", "pod", *found, "--namespace", namespace, "--wait=false")
    told = {
        pod["metadata"]["name"]: sigterm(pod)
        for release in releases
        for pod in pods(cluster, namespace, release)
        if "deletionTimestamp" in pod["metadata"]
    }
    return [
        Stopped(release=release, sigterm=told[name], streams=streams.told())
        for name, (release, streams) in found.items()
    ]


def caught(stopped: list[Stopped]) -> int:
    """How many streams were under way when their pod was told to stop."""
    return sum(len(each.caught()) for each in stopped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What became of requests through the Service, and of the streams of the replaced pods."""

    requests: list[dict[str, Any]]
    stopped: list[Stopped]


@pytest.fixture(scope="module")
def update(cluster: Cluster, two: str) -> Update:
    """An upgrade that changes the pods, and its rollback, under traffic."""
    # By its address: what is asked is whether the chart loses a request, not whether names resolve.
    where = f"{cluster.get('service', SERVER, '--namespace', two)['spec']['clusterIP']}:80"
    asked = Traffic(cluster, two, "requests", where, threads=2, tokens=4, seconds=1500)
    with Watch(cluster, two) as watch:
        upgrade(cluster, two, *LOCAL, values=CHANGED)
        settled(cluster, two)
        cluster.helm("rollback", RELEASE, "--namespace", two)
        settled(cluster, two)
    stopped = watch.stopped()
    return Update(requests=asked.end().told(), stopped=stopped)


@pytest.mark.long
def test_an_upgrade_and_its_rollback_lose_no_request(update: Update) -> None:
    assert [each for each in update.requests if each["error"]] == []
    # How many hangs on how long the pods take to start, and on what they leave of the CPU.
    assert len(update.requests) > 50


@pytest.mark.long
def test_streams_that_decode_when_their_pod_is_told_to_stop_end_whole(
    cluster: Cluster, two: str, update: Update
) -> None:
    replaced = update.stopped
    assert len(replaced) == 4  # two pods, twice
    assert [each.broken() for each in replaced if each.broken()] == []
    # They begin while the pods that take over want the CPU: fewer than where pods are deleted.
    assert caught(replaced) >= THREADS, [each.seen() for each in replaced]
    stopped: list[Stopped] = []
    while len(stopped) < DELETIONS:
        settled(cluster, two)
        stopped += deleted(cluster, two, RELEASE)
        assert [each.broken() for each in stopped if each.broken()] == []
        assert [each.seen() for each in stopped if not each.caught()] == []
    assert caught([*replaced, *stopped]) >= STREAMS


@pytest.mark.long
def test_without_a_drain_streams_are_cut_and_a_short_drain_cuts_the_longer_ones(
    cluster: Cluster, two: str
) -> None:
    alone = {**TWO, "replicas": 1, "rollout": {"allowDowntime": True}}
    upgrade(cluster, two, *LOCAL, values={**alone, "drain.seconds": 0})
    short = {**alone, "drain.seconds": SHORT_DRAIN_SECONDS}
    with installed(cluster, two, *LOCAL, release=OTHER, values=short):
        for release in (RELEASE, OTHER):
            settled(cluster, two, release)
        stopped = {each.release: each for each in deleted(cluster, two, RELEASE, OTHER)}
    assert stopped[RELEASE].broken(), stopped[RELEASE].seen()
    cut = stopped[OTHER].broken()
    assert cut, stopped[OTHER].seen()
    within = stopped[OTHER].sigterm + SHORT_DRAIN_SECONDS
    assert [each for each in cut if each["ended"] < within] == []


# --- the end


def left(cluster: Cluster, namespace: str) -> set[str]:
    kinds = (
        "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,networkpolicies,"
        "poddisruptionbudgets,podmonitors,prometheusrules,httproutes,roles,rolebindings"
    )
    names = cluster.kubectl("get", kinds, "--namespace", namespace, "-o", "name").split()
    # What Kubernetes puts into every namespace, and what helm test leaves for its logs.
    return set(names) - {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def test_a_feature_whose_definitions_are_absent_is_named_before_anything_is_created(
    cluster: Cluster, namespace: str
) -> None:
    if "scaledobjects.keda.sh" in cluster.kubectl("get", "customresourcedefinitions", "-o", "name"):
        pytest.skip("this cluster has KEDA")
    values = {"autoscaling.enabled": True, "autoscaling.prometheus": "http://prometheus:9090"}
    with pytest.raises(CommandFailed) as refused:
        upgrade(cluster, namespace, *LOCAL, values=values)
    assert 'no matches for kind "ScaledObject"' in str(refused.value)
    assert left(cluster, namespace) == set()


@pytest.mark.smoke
def test_uninstall_leaves_only_the_claim_with_the_weights(cluster: Cluster, namespace: str) -> None:
    values = {"model.source": "job", "replicas": 0, "engine.extraArgs": ["--seed=1"]}
    with installed(cluster, namespace, *LOCAL, values=values):
        assert len(left(cluster, namespace)) > 5
    wait(
        lambda: left(cluster, namespace) == {f"persistentvolumeclaim/{SERVER}-model"},
        "all but the claim to be gone",
        seconds=120,
    )
