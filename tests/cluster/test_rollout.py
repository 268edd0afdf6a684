"""Whole rollouts: real vLLM in the chart's pods, our controller from its chart, requests all along.

Both arms serve the learned model in GPT-OSS's real width, one pod each. What the kernel reads of an
expert of 360 neurons, padded to 512, differs by more between the two policies than for a whole one:
so the gain is plain on a machine that also has all the rest of this to do.
"""

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.charts import ROOT, counted, installed, pods, upgrade
from tests.cluster.cluster import Cluster
from tests.cluster.cores import swapped
from tests.cluster.test_chart import LOCAL, MODEL, client_pod, settled
from tools.node.errors import CommandFailed
from tools.node.waiting import wait

pytestmark = [pytest.mark.cluster, pytest.mark.whole, pytest.mark.timeout(1800)]

STABLE, CANARY, JUDGE = "gptoss-1", "gptoss-2", "gptoss"
JUDGE_FILES = ("deploy/local/moe-canary.yaml",)
WIDE, WIDTH = "generate(home, 360, 2880)", "generate(home, 360)"
PROBE = [
    *("--texts", "64", "--tokens", "32", "--greedy-tokens", "16", "--top", "5"),
    *("--per-round", "64", "--rounds", "8", "--concurrency", "1,4", "--output", "json"),
]
# Far more than both arms take at once: so every step has one batch size, and one cell has all data.
SEQUENCES, IN_FLIGHT, TOKENS = 4, 24, 96
# Some of them are long streams.
STREAMS, STREAM_TOKENS = 2, 480
CORES = 6
SWAP_SECONDS = 5  # half of a block in deploy/local


def arm(policy: str, track: str, **padding: Any) -> dict[str, Any]:
    """Values of one arm, beside deploy/local."""
    profile = yaml.safe_load((ROOT / LOCAL[0]).read_text("utf-8"))
    [init] = profile["extraInitContainers"]
    assert WIDTH in init["command"][-1]
    init["command"][-1] = init["command"][-1].replace(WIDTH, WIDE)
    return {
        "track": track, "padding": {"policy": policy, **padding}, "extraInitContainers": [init],
        "monitoring.rules.enabled": False,
        # vLLM's CPU worker dies of a seeded request whose prompt it has to split.
        "engine.extraArgs": [
            "--max-num-batched-tokens=2048", "--max-model-len=1024", f"--max-num-seqs={SEQUENCES}",
            "--stream-interval=10",
        ],
        "resources.memoryGiB": 8,
    }  # fmt: skip


def judge(parent: dict[str, str], namespace: str, host: str) -> dict[str, Any]:
    """Values of the controller."""
    arms = {
        name: {"service": f"{release}-moe-serve", "label": release, "port": 80, "replicas": 1}
        for name, release in (("stable", STABLE), ("canary", CANARY))
    }
    plan = {
        "name": JUDGE, "route": {"gateway": parent, "hostnames": [host]}, "arms": arms,
        "steps": [{"canary": 50, "hold_minutes": 0.5, "needs": "promote"}],
        "promotion": {"replicas": 1, "warm_replicas": 1, "weights": [100]},
        "capacity": {"pods_for_all_traffic": 1}, "watch_hours": 0,
    }  # fmt: skip
    return {
        "mode": "controller", "controller.plan": plan, "controller.shadow": False,
        "controller.lookSeconds": 2, "comparison.everySeconds": 5,
        "source.prometheus.selector": f'namespace="{namespace}"',
        "policy.validity.canary_share": 0.5,
    }  # fmt: skip


class TrafficLoad:
    """Requests through the gateway, as many at once all the time, each told."""

    def __init__(self, url: str, host: str) -> None:
        self.failed: list[str] = []
        self.answered = 0
        self._url, self._host = url, host
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number < STREAMS,))
            for number in range(IN_FLIGHT)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, stream: bool) -> None:
        # A connection is kept for a while, then made anew, as clients do.
        while not self._end.is_set():
            with httpx.Client(headers={"Host": self._host}, timeout=300, trust_env=False) as client:
                for _ in range(10):
                    if not self._end.is_set():
                        self._one(client, stream)

    def _one(self, client: httpx.Client, stream: bool) -> None:
        asked = STREAM_TOKENS if stream else TOKENS
        body = {
            "model": MODEL, "prompt": "Write 79, 25, 83 reversed as one JSON list.\n",
            "max_tokens": asked, "ignore_eos": True, "temperature": 0, "stream": stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
        }  # fmt: skip
        try:
            answer = client.post(f"{self._url}/v1/completions", json=body)
            whole = answer.is_success and tokens(answer.text, stream) == asked
        except (httpx.HTTPError, ValueError, LookupError) as error:
            self.failed.append(f"{time.time():.0f} {type(error).__name__}: {error}")
            return
        if whole:
            self.answered += 1
        else:
            self.failed.append(f"{time.time():.0f} {answer.status_code} {answer.text[-200:]}")


def tokens(answer: str, stream: bool) -> int:
    """How many tokens a completion has; 0 where a stream did not come to its end."""
    if stream:
        events = [line.removeprefix("data: ") for line in answer.splitlines() if line]
        if events[-1:] != ["[DONE]"]:
            return 0
        answer = events[-2]
    return int(json.loads(answer)["usage"]["completion_tokens"])


@dataclass(slots=True)
class Watch:
    """Every set of weights that the route had, with what both servers had answered by then.

    `generation` counts what was written into the route: as often as it changed here, unless a
    change came and went between two looks.
    """

    cluster: Cluster
    namespace: str
    generation: int = 0
    seen: list[tuple[dict[str, int], dict[str, int]]] = field(default_factory=list)

    def look(self) -> None:
        try:
            route = self.cluster.get("httproute", JUDGE, "--namespace", self.namespace)
        except CommandFailed:
            return
        self.generation = route["metadata"]["generation"]
        refs = route["spec"]["rules"][0]["backendRefs"]
        weights = {ref["name"].removesuffix("-moe-serve"): ref.get("weight", 1) for ref in refs}
        if not self.seen or self.seen[-1][0] != weights:
            self.seen.append((weights, self.counts()))

    def counts(self) -> dict[str, int]:
        """Requests that each arm's server has answered since its start."""
        return {
            release: served(self.cluster, self.namespace, release) for release in (STABLE, CANARY)
        }

    def shares(self) -> list[tuple[dict[str, int], int, float]]:
        """For each set of weights: requests, and the canary's share of them."""
        ends = [*(counts for _, counts in self.seen[1:]), self.counts()]
        told = []
        for (weights, begun), end in zip(self.seen, ends, strict=True):
            made = {release: end[release] - begun[release] for release in begun}
            told.append((weights, sum(made.values()), made[CANARY] / max(1, sum(made.values()))))
        return told


def served(cluster: Cluster, namespace: str, release: str) -> int:
    [pod] = pods(cluster, namespace, release)
    return counted(cluster, namespace, pod["metadata"]["name"], "vllm:request_success_total")


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace with the stable arm, ready, and a client."""
    cluster.require_images()
    with cluster.namespace("rollout") as namespace:
        cluster.apply(client_pod(), "--namespace", namespace)
        with installed(cluster, namespace, *LOCAL, release=STABLE, values=arm("zero", "stable")):
            settled(cluster, namespace, STABLE)
            yield namespace


def answers(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """What `moe-serve quality probe` says of the two arms, and where the judge reads it."""
    arms = {"stable": STABLE, "canary": CANARY}
    addresses = {
        release: pods(cluster, namespace, release)[0]["status"]["podIP"]
        for release in arms.values()
    }
    words = ["moe-serve", "quality", "probe"]
    for name, release in arms.items():
        words += [f"--{name}", f"http://{release}-moe-serve"]
        words += [f"--{name}-exporter", f"http://{addresses[release]}:9400/metrics"]
    ending = "; test $? -ne 2"  # 10 and 20 are answers too
    said = cluster.kubectl(
        *("exec", "client", "--namespace", namespace, "--", "sh", "-c"),
        " ".join([*words, *PROBE]) + ending,
        seconds=400,
    )
    found: dict[str, Any] = json.loads(said)
    cluster.apply(
        json.dumps({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gptoss-quality"},
            "data": {"quality.json": said},
        }),
        "--namespace", namespace,
    )  # fmt: skip
    return found


@contextlib.contextmanager
def rollout(
    cluster: Cluster, namespace: str, gateway: tuple[dict[str, str], str]
) -> Iterator[tuple[Watch, TrafficLoad]]:
    """The controller at work, and requests from before it touches anything until the end."""
    parent, url = gateway
    host = f"{secrets.token_hex(3)}.example"
    load, watch = TrafficLoad(url, host), Watch(cluster, namespace)
    values = judge(parent, namespace, host)
    with installed(
        cluster, namespace, *JUDGE_FILES, release=JUDGE, chart="moe-canary", values=values
    ):
        wait(lambda: watch.look() or watch.seen, "the controller's route", seconds=120)
        wait(lambda: reached(url, host), "the gateway to have the route", seconds=120)
        load.start()
        try:
            yield watch, load
        finally:
            load.stop()
    # The route is the controller's, not the release's.
    cluster.kubectl("delete", "httproute", JUDGE, "--namespace", namespace)
    cluster.kubectl("delete", "configmap", f"{JUDGE}-rollout", "--namespace", namespace)


def reached(url: str, host: str) -> bool:
    answer = httpx.get(f"{url}/health", headers={"Host": host}, timeout=10, trust_env=False)
    return answer.is_success


def state(cluster: Cluster, namespace: str) -> dict[str, Any]:
    kept = cluster.get("configmap", f"{JUDGE}-rollout", "--namespace", namespace)
    found: dict[str, Any] = json.loads(kept["data"]["state"])
    return found


def ended(cluster: Cluster, namespace: str, watch: Watch, phase: str) -> dict[str, Any]:
    """The rollout's state, once it is in its last phase."""

    def look() -> dict[str, Any] | None:
        watch.look()
        found = state(cluster, namespace)
        assert found["phase"] != "held", found
        pending_hold = found["pending_hold"] or {"reason": "", "since": 0}
        lasts = time.time() - pending_hold["since"] > 180
        assert not (pending_hold["reason"] == "invalid" and lasts), pending_hold
        return found if found["phase"] in ("done", "rolled_back") else None

    found = wait(look, phase, seconds=900, every=1)
    assert found["phase"] == phase, found
    return found


def checks(cluster: Cluster, namespace: str) -> dict[str, dict[str, Any]]:
    """The checks of the last verdict that the controller's own audit has."""
    text = cluster.kubectl(
        *("exec", f"deployment/{JUDGE}-moe-canary", "--namespace", namespace, "--"),
        *("cat", "/var/lib/moe-serve/audit.jsonl"),
    )
    verdicts = [found for line in text.splitlines() if (found := json.loads(line).get("verdict"))]
    return {check["name"]: check for check in verdicts[-1]["checks"]}


@contextlib.contextmanager
def undisturbed(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Both arms' servers do not share a core; where nothing can keep them apart, there are many."""
    if cluster.own:
        arms = [pods(cluster, namespace, release)[0] for release in (STABLE, CANARY)]
        with swapped([pod["metadata"]["uid"] for pod in arms], seconds=SWAP_SECONDS):
            yield
    elif (os.cpu_count() or 1) < CORES:
        pytest.skip(
            f"needs {CORES} cores or the node of `make cluster`: servers that share cores by "
            "chance vary by half from block to block"
        )
    else:
        yield


def test_lossless_pads_against_none_are_promoted_under_load_and_no_request_is_lost(
    cluster: Cluster, place: str, gateway: tuple[dict[str, str], str]
) -> None:
    with installed(cluster, place, *LOCAL, release=CANARY, values=arm("aligned", "canary")):
        settled(cluster, place, CANARY)
        assert answers(cluster, place)["outcome"] == "passed"
        with (
            undisturbed(cluster, place),
            rollout(cluster, place, gateway) as (watch, load),
        ):
            wait(lambda: halved(watch), "half of the requests for the canary", seconds=300)
            # A controller that starts anew finds its route, and goes on where the other was.
            first = judges(cluster, place)
            cluster.kubectl("delete", "pod", "--namespace", place, *first)
            second = wait(
                lambda: watch.look() or judges(cluster, place) - first, "another controller"
            )
            # An upgrade moves no weight either, though the one of the judge starts it once more.
            for release, chart, changed in (
                (STABLE, "moe-serve", {"service.annotations": {"note": "new"}}),
                (JUDGE, "moe-canary", {"controller.lookSeconds": 3}),
            ):
                words = ("--reuse-values",)
                upgrade(
                    *(cluster, place), release=release, chart=chart, values=changed, words=words
                )
                watch.look()
            wait(
                lambda: watch.look() or judges(cluster, place) - first - second,
                "a third controller",
            )
            ended(cluster, place, watch, "done")
            split = checks(cluster, place)["traffic_split"]
            shares = watch.shares()
            wait(lambda: alone(watch), "stable to have answered its last request", seconds=300)
            watch.look()

    assert load.failed == []
    assert watch.generation == len(watch.seen)
    assert [weights for weights, _, _ in shares] == [
        {STABLE: 100}, {STABLE: 50, CANARY: 50}, {CANARY: 100},
    ]  # fmt: skip
    assert split["passed"] and split["number"] is not None
    (_, _, none), (_, requests, half), _ = shares
    assert none == 0.0
    # The gateway deals requests out in turn: off are those under way when the weights changed.
    assert requests > 10 * IN_FLIGHT
    assert abs(half - 0.5) * requests < 2 * IN_FLIGHT


def judges(cluster: Cluster, namespace: str) -> set[str]:
    """The names of the controller's pods."""
    label = f"app.kubernetes.io/instance={JUDGE}"
    found = cluster.get("pods", "--namespace", namespace, "-l", label)["items"]
    return {pod["metadata"]["name"] for pod in found}


def halved(watch: Watch) -> bool:
    """Whether the canary has its half of the weights."""
    watch.look()
    return CANARY in watch.seen[-1][0]


def alone(watch: Watch) -> bool:
    """Whether the canary answers 20 requests, and stable none in that time."""
    before = watch.counts()
    wait(
        lambda: watch.counts()[CANARY] >= before[CANARY] + 20, "answers of the canary", seconds=180
    )
    return watch.counts()[STABLE] == before[STABLE]


def test_vllms_own_pads_that_lose_neurons_never_get_a_request(
    cluster: Cluster, place: str, gateway: tuple[dict[str, str], str]
) -> None:
    values = arm("upstream", "canary", maxNeuronLoss=0.3)
    with installed(cluster, place, *LOCAL, release=CANARY, values=values):
        settled(cluster, place, CANARY)
        assert answers(cluster, place)["outcome"] == "failed"
        probed = served(cluster, place, CANARY)
        with rollout(cluster, place, gateway) as (watch, load):
            found = ended(cluster, place, watch, "rolled_back")
            wait(lambda: load.answered > 20, "requests to stable", seconds=180)
            watch.look()
        assert served(cluster, place, CANARY) == probed

    assert load.failed == []
    assert ([weights for weights, _ in watch.seen], watch.generation) == ([{STABLE: 100}], 1)
    assert "answers" in json.dumps(found["history"])
