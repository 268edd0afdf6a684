"""A real Argo Rollouts controller asks a real judge."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engines import objects
from tests.engines.conftest import Space, Weights, namespace
from tests.engines.verdicts import CASES, free_port, judge
from tools.node.kubernetes import Kubernetes

pytestmark = [pytest.mark.rollouts, pytest.mark.usefixtures("argo_rollouts")]

# Argo's own default would give up after four errors, 50 s.
SILENT_SECONDS = float(os.environ.get("MOE_SERVE_SILENT_SECONDS", "600"))


WEIGHT = '.spec.weighted.services[?(@.name=="gptoss-canary")].weight'


class Rollout:
    """A canary under way."""

    def __init__(self, space: Space, judge: str, folder: Path, stack: ExitStack) -> None:
        self.space = space
        space.apply(objects.text([objects.deployment("zero", replicas=0)]))
        space.apply(objects.text(objects.argo(judge)))
        space.until("stable is healthy", lambda: self.phase == "Healthy")
        self.watched = Weights(space, "traefikservice", "gptoss", WEIGHT, folder / "weights")
        stack.callback(self.watched.stop)
        space.until("the weights are watched", lambda: self.weights == [0])
        space.apply(objects.text([objects.deployment("aligned", replicas=0)]))
        space.until("the canary has begun", lambda: self.phase != "Healthy")

    @property
    def status(self) -> dict[str, Any]:
        status: Any = self.space.get("rollout", "gptoss").get("status") or {}
        return dict(status)

    @property
    def phase(self) -> str | None:
        return self.status.get("phase")

    @property
    def weights(self) -> list[int]:
        return self.watched.seen

    def promoted(self) -> bool:
        """Whether the canary's template is the stable one now."""
        status = self.status
        whole = status.get("stableRS") == status.get("currentPodHash")
        return bool(status.get("phase") == "Healthy" and whole)

    def aborted(self) -> bool:
        status = self.status
        return bool(status.get("abort") and status.get("phase") == "Degraded")


@pytest.fixture
def begin(space: Space, tmp_path: Path) -> Iterator[Callable[[str], Rollout]]:
    with ExitStack() as stack:

        def begun(case: str) -> Rollout:
            url = stack.enter_context(judge(CASES[case], tmp_path, free_port()))
            return Rollout(space, url, tmp_path, stack)

        yield begun


def test_a_canary_that_is_proven_faster_is_promoted(begin: Callable[[str], Rollout]) -> None:
    rollout = begin("faster")
    rollout.space.until("promoted", rollout.promoted)
    # Argo sets no weight that the plan lacks; once all pods are the canary's they are stable.
    rollout.space.until("all weight is stable's", lambda: rollout.weights[-1] == 0)
    assert rollout.weights == [0, 10, 50, 100, 0]


def test_a_canary_whose_answers_differ_is_aborted_before_any_request(
    begin: Callable[[str], Rollout],
) -> None:
    rollout = begin("wrong")
    rollout.space.until("aborted", rollout.aborted)
    assert rollout.weights == [0]


def test_a_canary_without_gain_is_aborted_and_loses_its_weight(
    begin: Callable[[str], Rollout],
) -> None:
    rollout = begin("no gain")
    rollout.space.until("aborted", rollout.aborted)
    rollout.space.until("weight 0", lambda: rollout.weights[-1] == 0)
    assert rollout.weights == [0, 10, 0]


def test_without_a_decision_the_rollout_pauses_for_a_person(
    begin: Callable[[str], Rollout],
) -> None:
    rollout = begin("undecided")
    rollout.space.until("paused", lambda: rollout.phase == "Paused")
    reasons = [pause["reason"] for pause in rollout.status["pauseConditions"]]
    assert reasons == ["InconclusiveAnalysisRun"]
    assert not rollout.status.get("abort")
    assert rollout.weights == [0, 10]


@pytest.fixture(scope="session", autouse=True)
def unanswered(
    cluster: Kubernetes, argo_rollouts: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rollout, int, float]]:
    """A canary whose judge does not answer: begun before all tests, looked at after them."""
    port = free_port()
    with ExitStack() as stack:
        space = stack.enter_context(namespace(cluster))
        folder = tmp_path_factory.mktemp("unanswered")
        rollout = Rollout(space, f"http://127.0.0.1:{port}", folder, stack)
        yield rollout, port, time.monotonic()


@pytest.mark.last
def test_a_judge_that_is_down_neither_promotes_nor_aborts(
    unanswered: tuple[Rollout, int, float], tmp_path: Path
) -> None:
    rollout, port, begun = unanswered
    while time.monotonic() < begun + SILENT_SECONDS:
        status = rollout.status
        assert not status.get("abort")
        assert status.get("phase") == "Progressing"
        time.sleep(2)
    assert rollout.weights == [0]
    with judge(CASES["faster"], tmp_path, port):
        rollout.space.until("promoted once the judge answers", rollout.promoted)
