"""The environments: alike where they should be, and sound as comparisons."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_serve.config.policy_file import load, parse
from moe_serve.config.rollout_file import parse as plan
from tests.charts.consequences import consequences
from tests.charts.rendering import CHARTS, DEPLOY, Refused, render

ENVIRONMENTS = ("local", "staging", "production")
FILES = ("moe-serve.yaml", "canary.yaml", "moe-canary.yaml")
JUDGED = ("staging", "production")


def values(environment: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / environment / name).read_text("utf-8"))
    return found


def arm(environment: str, *more: str, **options: Any) -> Any:
    below = ["charts/moe-serve/profiles/cpu-local.yaml"] if environment == "local" else []
    files = [*below, f"deploy/{environment}/moe-serve.yaml", *more]
    return render("moe-serve", *files, **options)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_has_the_same_files(environment: str) -> None:
    names = {path.name for path in (DEPLOY / environment).iterdir()}
    assert set(FILES) <= names
    assert {name for name in names if not name.startswith("pr42098")} == set(FILES)


def test_staging_and_production_say_the_same_things_in_the_same_order() -> None:
    """So that `diff -r` shows decisions and not layout."""
    for name in ("moe-serve.yaml", "moe-canary.yaml"):
        staging, production = (list(values(each, name)) for each in JUDGED)
        assert [key for key in production if key in staging] == staging, name


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_canary_differs_from_stable_and_an_equal_one_is_refused(environment: str) -> None:
    stable = arm(environment).only("Deployment")["metadata"]["annotations"]
    digest = {"comparedWith": stable["moe-serve.io/pod-spec-digest"]}
    arm(environment, f"deploy/{environment}/canary.yaml", set=digest, release="gptoss-2")
    with pytest.raises(Refused, match="comparedWith"):
        arm(environment, set=digest, release="gptoss-1b")
    arm(environment, set={**digest, "purpose": "aa"}, release="gptoss-1b")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_a_canary_changes_is_under_test(environment: str) -> None:
    stable, canary = (f"deploy/{environment}/{name}.yaml" for name in ("moe-serve", "canary"))
    changed = consequences(stable, canary)
    assert changed
    assert changed <= {*values(environment, "moe-canary.yaml")["policy"]["validity"]["under_test"]}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_canary_brings_nothing_that_a_namespace_has_once(environment: str) -> None:
    canary = arm(environment, f"deploy/{environment}/canary.yaml", release="gptoss-2")
    assert not {"PrometheusRule", "HTTPRoute"} & canary.kinds()
    assert not [name for kind, name in canary if kind == "ConfigMap"]
    assert [name for kind, name in canary if kind == "PodMonitor"] == ["gptoss-2-moe-serve"]


@pytest.mark.parametrize("environment", JUDGED)
def test_production_and_staging_pin_what_they_run(environment: str) -> None:
    for files in ((), (f"deploy/{environment}/canary.yaml",)):
        image = arm(environment, *files).server["image"]
        assert image.rpartition(":")[2].startswith("0.1.0-vllm")
    given = values(environment, "moe-serve.yaml")
    assert given["image"]["tag"]
    assert values(environment, "moe-canary.yaml")["image"]["tag"]


@pytest.mark.parametrize("environment", JUDGED)
def test_the_controller_alone_writes_the_route(environment: str) -> None:
    assert "HTTPRoute" not in arm(environment).kinds()
    given = values(environment, "moe-serve.yaml")
    assert given["route"] == {"owner": "controller"}
    judge = values(environment, "moe-canary.yaml")
    assert judge["mode"] == "controller"
    assert judge["controller"]["shadow"] is (environment == "staging")


@pytest.mark.parametrize("environment", JUDGED)
def test_the_plan_is_one_that_the_controller_takes_and_its_arms_are_the_releases(
    environment: str,
) -> None:
    given = values(environment, "moe-canary.yaml")["controller"]["plan"]
    plan(given, environment)
    for name, options in (
        ("stable", {"release": "gptoss-1"}),
        ("canary", {"release": "gptoss-2"}),
        ("baseline", {"release": "gptoss-1b"}),
    ):
        if name not in given["arms"]:
            continue
        objects = arm(environment, **options)
        told = given["arms"][name]
        service = objects[("Service", told["service"])]
        assert told["port"] in [port["port"] for port in service["spec"]["ports"]]
        assert told["label"] == objects.pod["metadata"]["labels"]["moe-serve.io/arm"]


def test_productions_canary_and_baseline_take_the_gpus_that_stable_gives() -> None:
    given = values("production", "moe-canary.yaml")["controller"]["plan"]
    during = sum(each["replicas"] for each in given["arms"].values())
    before = values("production", "moe-serve.yaml")["replicas"]
    assert during == before == given["capacity"]["gpus"]
    canary = values("production", "canary.yaml")["replicas"]
    assert given["arms"]["canary"]["replicas"] == canary == given["arms"]["baseline"]["replicas"]


def test_production_takes_the_charts_defaults() -> None:
    given = values("production", "moe-serve.yaml")
    untouched = {"engine", "padding", "drain", "startup", "rollout", "security", "preflight"}
    assert not untouched & set(given)


def test_the_lossy_rule_is_declared_and_asks_its_own_question() -> None:
    canary = arm(
        "production",
        "deploy/production/canary.yaml",
        "charts/moe-serve/profiles/pr42098.yaml",
        "deploy/production/pr42098.yaml",
        release="gptoss-2",
    )
    assert canary.env["MOE_SERVE_PADDING"] == "rounded"
    assert canary.env["MOE_SERVE_MAX_NEURON_LOSS"] == "0.07"
    stable = arm("production")
    assert canary.server["image"] == stable.server["image"]  # one thing is under test
    assert canary.server["args"] == stable.server["args"]
    files = ("deploy/production/moe-canary.yaml", "deploy/production/pr42098-canary.yaml")
    rendered = render("moe-canary", *files).only("ConfigMap")["data"]["policy.yaml"]
    asked = parse(yaml.safe_load(rendered), "pr42098")
    profile = load(Path(CHARTS / "moe-serve" / "policies" / "pr42098.yaml"))
    assert asked.policy == profile.policy


def test_at_eight_gpus_the_lossy_rule_is_refused() -> None:
    with pytest.raises(Refused, match=r"rounded zeroes 28\.89 %"):
        arm(
            "production",
            "charts/moe-serve/profiles/pr42098.yaml",
            set={"engine.tensorParallelSize": 8, "gpu.count": 8},
        )
