"""A real Flagger asks a real judge, over the Gateway API."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.engines import objects
from tests.engines.conftest import Space, Weights
from tests.engines.verdicts import CASES, free_port, judge

pytestmark = [pytest.mark.rollouts, pytest.mark.usefixtures("flagger")]

NAMING = "nameOverride"
WEIGHT = '.spec.rules[0].backendRefs[?(@.name=="gptoss-api-canary")].weight'


class Canary:
    """A canary under way."""

    def __init__(self, space: Space, judge: str, folder: Path, stack: ExitStack) -> None:
        self.space = space
        space.apply(objects.text([objects.deployment("zero", 2, NAMING)]))
        space.apply(objects.text(objects.flagger(judge)))
        space.until("initialised", lambda: self.phase == "Initialized")
        self.watched = Weights(space, "httproute", "gptoss-api", WEIGHT, folder / "weights")
        stack.callback(self.watched.stop)
        space.until("the weights are watched", lambda: self.weights == [0])
        space.apply(objects.text([objects.deployment("aligned", 2, NAMING)]))

    @property
    def status(self) -> dict[str, Any]:
        status: Any = self.space.get("canary", "gptoss").get("status") or {}
        return dict(status)

    @property
    def phase(self) -> str | None:
        return self.status.get("phase")

    @property
    def weights(self) -> list[int]:
        return self.watched.seen

    def policy(self) -> str:
        """What the primary sends."""
        made: Any = self.space.get("deployment", "gptoss-primary")
        return str(made["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])


@pytest.fixture
def begin(space: Space, tmp_path: Path) -> Iterator[Callable[[str], Canary]]:
    with ExitStack() as stack:

        def begun(case: str) -> Canary:
            url = stack.enter_context(judge(CASES[case], tmp_path, free_port()))
            return Canary(space, url, tmp_path, stack)

        yield begun


def test_the_primarys_pods_are_those_that_the_example_scrapes_as_stable(
    space: Space, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        Canary(space, f"http://127.0.0.1:{free_port()}", tmp_path, stack)
    monitor: Any = space.get("podmonitor", "gptoss-primary")
    selector = monitor["spec"]["selector"]["matchLabels"]

    def selected(deployment: str) -> bool:
        made: Any = space.get("deployment", deployment)
        return bool(selector.items() <= made["spec"]["template"]["metadata"]["labels"].items())

    assert selected("gptoss-primary")
    assert not selected("gptoss")


def test_a_canary_that_is_proven_faster_is_promoted(begin: Callable[[str], Canary]) -> None:
    canary = begin("faster")
    canary.space.until("promoted", lambda: canary.phase == "Succeeded")
    assert canary.policy() == "aligned"
    assert canary.weights == [0, 10, 50, 0]


def test_a_canary_whose_answers_differ_is_rolled_back_before_any_request(
    begin: Callable[[str], Canary],
) -> None:
    canary = begin("wrong")
    canary.space.until("rolled back", lambda: canary.phase == "Failed")
    assert canary.policy() == "zero"
    assert canary.weights == [0]


def test_a_canary_without_gain_is_rolled_back(begin: Callable[[str], Canary]) -> None:
    canary = begin("no gain")
    canary.space.until("rolled back", lambda: canary.phase == "Failed")
    canary.space.until("weight 0", lambda: canary.weights[-1] == 0)
    assert canary.policy() == "zero"
    assert max(canary.weights) <= 10


def test_a_judge_that_is_down_holds_it_and_no_failure_is_counted(
    space: Space, tmp_path: Path
) -> None:
    port = free_port()
    with ExitStack() as stack:
        canary = Canary(space, f"http://127.0.0.1:{port}", tmp_path, stack)
        canary.space.until("begun", lambda: canary.phase == "Progressing")
        # Longer than the threshold's five checks take.
        until = time.monotonic() + 6 * objects.FLAGGER_SECONDS
        while time.monotonic() < until:
            status = canary.status
            assert (status["phase"], status["failedChecks"]) == ("Progressing", 0)
            time.sleep(0.5)
        assert canary.weights == [0]
        stack.enter_context(judge(CASES["faster"], tmp_path, port))
        canary.space.until("promoted once it answers", lambda: canary.phase == "Succeeded")


def test_without_a_decision_it_is_held_and_no_failure_is_counted(
    begin: Callable[[str], Canary],
) -> None:
    canary = begin("undecided")
    canary.space.until("waiting", lambda: canary.phase == "WaitingPromotion")
    # Longer than the threshold's five checks take.
    until = time.monotonic() + 6 * objects.FLAGGER_SECONDS
    while time.monotonic() < until:
        status = canary.status
        assert (status["phase"], status["failedChecks"]) == ("WaitingPromotion", 0)
        time.sleep(0.5)
    assert canary.weights == [0, 10, 50]
    assert canary.policy() == "zero"
