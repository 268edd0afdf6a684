"""Our own controller, as a process, asks a real judge and moves a real API server's route."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from moe_serve.kubernetes.api import connect
from tests.chaos.arena import Arena, backends, until
from tests.chaos.lives import Lives
from tests.engines.conftest import namespace
from tests.engines.verdicts import CASES, OTHER, free_port, judge
from tools.node.kubernetes import Kubernetes

pytestmark = pytest.mark.rollouts
HELD = {"patience": {"deadline_hours": 0.01}}


class Rollout:
    """A canary under way, with every weight that the route ever gave to it."""

    def __init__(
        self, arena: Arena, lives: Lives, stack: ExitStack, silence: Callable[[], None]
    ) -> None:
        self.arena = arena
        self.silence = silence
        self.weights: list[int] = []
        self._ended = threading.Event()
        for target in (self._watch, self._surroundings):
            thread = threading.Thread(target=target)
            thread.start()
            stack.callback(thread.join)
        stack.callback(self._ended.set)
        life = lives.start()
        stack.callback(lives.end)
        self.stop = life.stop

    @property
    def phase(self) -> str:
        return str(self.arena.rollout().get("phase"))

    def until(self, phase: str) -> None:
        until(f"{phase}, not {self.arena.rollout()}", lambda: self.phase == phase, 90)

    def _watch(self) -> None:
        path, name = self.arena.of("httproutes"), {"fieldSelector": "metadata.name=gptoss"}
        version = self.arena.api.get(path, **name)["metadata"]["resourceVersion"]
        while not self._ended.is_set():
            for change in self.arena.api.watch(path, 2, resourceVersion=version, **name):
                version = change["object"]["metadata"]["resourceVersion"]
                weight = backends(change["object"]).get("gptoss-2", 0)
                if self.weights[-1:] != [weight]:
                    self.weights.append(weight)

    def _surroundings(self) -> None:
        """The gateway takes the route, and Git makes the printed changes of replicas."""
        while not self._ended.is_set():
            self.arena.accept_route()
            if self.phase == "promotion" and self.arena.ready["canary"] < 4:
                self.arena.scale("canary", self.arena.ready["canary"] + 1)
            self._ended.wait(0.5)


def crowd(arena: Arena) -> None:
    """Instead of the canary's pod one that wants more GPUs than any node has."""
    arena.scale("canary", 0)
    container = {
        "name": "vllm",
        "image": "registry.invalid/vllm:1",
        "resources": {"limits": {"amd.com/gpu": "999"}},
    }
    metadata = {"name": "gptoss-2-full", "labels": {"moe-serve.io/arm": "gptoss-2"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    arena.api.create(arena.of("pods"), {**pod, "spec": {"containers": [container]}})


@pytest.fixture
def begin(cluster: Kubernetes, tmp_path: Path) -> Iterator[Callable[..., Rollout]]:
    with ExitStack() as stack:

        def begun(case: str, *, crowded: bool = False, **plan: object) -> Rollout:
            asked = stack.enter_context(ExitStack())
            url = asked.enter_context(judge(CASES[case], tmp_path, free_port()))
            space = stack.enter_context(namespace(cluster))
            kubeconfig = str(cluster.kubeconfig)
            arena = Arena(connect(space.name, kubeconfig=kubeconfig), folder=tmp_path)
            account = ("get", "serviceaccount", "default", "-n", space.name, "--ignore-not-found")
            until("the namespace's account", lambda: cluster.kubectl(*account))
            arena.begin(**plan)
            if crowded:
                crowd(arena)
            (tmp_path / "webhook").write_text("http://127.0.0.1:9/")
            lives = Lives(
                plan=arena.plan_file, kubeconfig=cluster.kubeconfig, namespace=space.name,
                judge=url, audit=tmp_path / "audit.jsonl", webhook=tmp_path / "webhook",
                log=tmp_path / "controller.log",
            )  # fmt: skip
            return Rollout(arena, lives, stack, asked.close)

        yield begun


def test_a_canary_that_is_proven_faster_gets_the_plans_weights_and_then_everything(
    begin: Callable[..., Rollout],
) -> None:
    rollout = begin("faster")
    rollout.until("done")
    assert rollout.weights == [0, 5, 10, 25, 50, 75, 100]
    assert "PROMOTE" in json.dumps(rollout.arena.rollout()["history"])


def test_a_canary_whose_answers_differ_never_gets_a_request(begin: Callable[..., Rollout]) -> None:
    rollout = begin("wrong")
    rollout.until("rolled_back")
    assert rollout.weights == [0]


def test_a_canary_without_gain_is_taken_back(begin: Callable[..., Rollout]) -> None:
    rollout = begin("no gain")
    rollout.until("rolled_back")
    assert rollout.weights in ([0], [0, 5, 0], [0, 5, 10, 0])


def test_without_a_decision_it_is_held_at_its_weight_until_a_person_aborts(
    begin: Callable[..., Rollout],
) -> None:
    rollout = begin("undecided", **HELD)
    rollout.until("held")
    assert rollout.arena.rollout()["hold"]["cause"] == "deadline"
    assert rollout.weights == [0, 5, 10]
    rollout.arena.wish(abort=rollout.arena.rollout()["rollout"])
    rollout.until("rolled_back")
    until("weight 0", lambda: rollout.weights == [0, 5, 10, 0])


def test_a_canary_that_turns_bad_in_the_watch_is_taken_back(
    begin: Callable[..., Rollout], tmp_path: Path
) -> None:
    rollout = begin("faster", watch_hours=1)
    rollout.until("watch")
    (tmp_path / "answers.json").write_text(json.dumps(OTHER))
    rollout.until("rolled_back")
    until("weight 0", lambda: rollout.weights == [0, 5, 10, 25, 50, 75, 100, 0])
    assert rollout.arena.rollout()["rolled_back_from"] == "watch"


def test_a_judge_that_falls_silent_holds_it_at_its_weight(
    begin: Callable[..., Rollout],
) -> None:
    rollout = begin("undecided", patience={"deadline_hours": 1, "blind_minutes": 0.1})
    until("a step", lambda: rollout.weights[-1:] == [10])
    rollout.silence()
    rollout.until("held")
    assert rollout.arena.rollout()["hold"]["cause"] == "blind"
    assert "no word of the judge" in rollout.arena.rollout()["waiting_for"]
    assert rollout.weights == [0, 5, 10]


def test_a_canary_for_which_no_node_has_room_is_held_with_the_missing_gpus_named(
    begin: Callable[..., Rollout],
) -> None:
    rollout = begin("faster", crowded=True, patience={"unplaceable_minutes": 0.05})
    rollout.until("held")
    assert rollout.arena.rollout()["hold"]["cause"] == "unplaceable"
    assert "lower the replicas of gptoss-1" in rollout.arena.rollout()["waiting_for"]
    assert "GPUs are missing" in rollout.arena.rollout()["waiting_for"]
    assert rollout.weights == [0]
