"""A plan that cannot be carried out is refused before anything is touched, by one line."""

from pathlib import Path
from typing import Any

import pytest

from moe_serve.config import rollout_file as plan_file
from moe_serve.errors import UsageError
from moe_serve.rollout.weights import NO_CANARY_TRAFFIC, Weights
from tests.rollout.world import DOCUMENT, plan_of

SHIPPED = Path(__file__).parents[2] / "deploy" / "canary" / "plan.yaml"


def test_the_shipped_plan_is_valid_and_its_weights_are_all_that_it_ever_asks_for() -> None:
    assert plan_file.load(SHIPPED).weight_steps == (
        NO_CANARY_TRAFFIC,
        Weights(stable=90, baseline=5, canary=5),
        Weights(stable=80, baseline=10, canary=10),
        Weights(stable=75, canary=25),
        Weights(stable=50, canary=50),
        Weights(stable=25, canary=75),
        Weights(stable=0, canary=100),
    )


def _arms(**changes: Any) -> dict[str, Any]:
    return {name: {**part, **changes.get(name, {})} for name, part in DOCUMENT["arms"].items()}


_STEP = {"canary": 10, "baseline": 10, "hold_minutes": 1, "needs": "promote"}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"stepps": []}, "plan: stepps: unknown key"),
        ({"steps": [{**_STEP, "pause": 1}]}, "plan: steps.0.pause: unknown key; known here: can"),
        ({"steps": []}, "plan: steps: Tuple should have at least 1 item"),
        ({"steps": [{**_STEP, "needs": "no_alarm"}]}, "steps: the last must need the judge's word"),
        ({"steps": [{**_STEP, "baseline": 5}]}, "steps.0.baseline: 5; compared arms get equal"),
        ({"steps": [_STEP, {**_STEP, "canary": 5, "baseline": 5}]}, "steps.1.canary: 5 is below"),
        ({"steps": [{**_STEP, "canary": 60, "baseline": 60}]}, "steps.0: canary 60 and baseline"),
        (
            {"steps": [{**_STEP, "canary": 30, "baseline": 30}]},
            "steps.0.baseline: 30 % for 1 of 6 pods, whose share is 16 %; 30 % of the traffic "
            "takes 2 pods",
        ),
        ({"name": "-x"}, "plan: name: String should match"),
        ({"route": {}}, "route.gateway: a dedicated route needs the Gateway"),
        ({"arms": _arms(canary={"service": "gptoss-1"})}, "arms: two have the same service"),
        ({"arms": _arms(canary={"replicas": 2})}, "arms.baseline.replicas: must be the canary's"),
        ({"arms": _arms(stable={"replicas": 3})}, "arms.stable.replicas: 3 cannot carry all"),
        (
            {"capacity": {**DOCUMENT["capacity"], "gpus": 40}},
            "cannot be placed: the arms need 48 GPUs, there are 40: 8 missing; lower "
            "arms.stable.replicas",
        ),
        (
            {"promotion": {"replicas": 6, "warm_replicas": 1}},
            "cannot be placed: the promotion need 56 GPUs, there are 48: 8 missing",
        ),
        ({"promotion": {"replicas": 3, "warm_replicas": 1}}, "promotion.replicas: 3 cannot carry"),
        (
            {"promotion": {"replicas": 4, "warm_replicas": 1, "weights": [25, 50]}},
            "promotion.weights: they must rise, and end with 100",
        ),
        (
            {"promotion": {"replicas": 4, "warm_replicas": 1, "weights": [10, 100]}},
            "promotion.weights: 10 is not above the last step's 10",
        ),
    ],
)  # fmt: skip
def test_a_plan_is_refused_with_the_key_and_the_reason(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(**parts)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_yaml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--rollout-file .*: No such file or directory"):
        plan_file.load(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("a: [")
    with pytest.raises(UsageError, match=r"--rollout-file .*: not YAML"):
        plan_file.load(tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("")
    with pytest.raises(UsageError, match=r"--rollout-file .*: document: "):
        plan_file.load(tmp_path / "plan.yaml")


def test_equal_plans_have_equal_digests_and_any_change_another() -> None:
    assert plan_of().digest == plan_of().digest
    assert plan_of(watch_hours=5).digest != plan_of().digest
