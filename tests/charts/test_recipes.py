"""The recipes for a canary, as a reader copies them: what they install is what they then name."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_serve.cli.main import build_parser
from moe_serve.config import rollout_file as plan_file
from moe_serve.config.policy_file import load, parse
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.weights import Track
from tests.charts.consequences import consequences
from tests.charts.rendering import DEPLOY, ROOT, Manifest, Rendered, render

PLACES = {
    "VALUES": "deploy/production/moe-serve.yaml",
    "CANARY": "deploy/production/canary.yaml",
    "CHANGE": "deploy/canary/change.yaml",
    "START": "2026-05-01T12:00:00Z",
    "URL": "http://127.0.0.1:9090",
}
# Flagger's default for -selector-labels; it takes the first that a Deployment's selector has, and
# gives its value and `-primary` to the primary's selector and pods (fluxcd/flagger v1.36.1,
# pkg/canary/deployment_controller.go).
FLAGGERS_LABELS = ("app", "name", "app.kubernetes.io/name")


def commands(text: str) -> list[list[str]]:
    """The words of each command in the first console block, without comments."""
    block = text.partition("```console\n")[2].partition("```")[0].replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    return [[PLACES.get(w, w) for w in shlex.split(line, comments=True)] for line in lines]


def recipes() -> dict[str, list[list[str]]]:
    readme = (ROOT / "README.md").read_text("utf-8").partition("### A canary in ten lines")[2]
    rollout = (ROOT / "docs/rollout.md").read_text("utf-8")
    names = ("Plain Gateway API", "Argo Rollouts", "Flagger", "A person with a shell")
    found = {name: commands(readme.partition(f"**{name}**")[2]) for name in names}
    return {**found, "docs/rollout.md": commands(rollout.partition("## A canary in ten lines")[2])}


RECIPES = recipes()
ENGINES = ("Argo Rollouts", "Flagger")
PLANNED = ("Plain Gateway API", "docs/rollout.md")


def rendered(words: list[str]) -> Rendered:
    """What a `helm install` or `helm upgrade` gives."""
    _, _, release, chart, *flags = words
    files, given = [], {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        assert flag in ("-f", "--set"), flag
        if flag == "-f":
            files.append(value)
        else:
            parts = (part.partition("=") for part in value.split(","))
            given.update({path: yaml.safe_load(text) for path, _, text in parts})
    return render(Path(chart).name, *files, set=given, release=release)


def releases(recipe: str) -> Iterator[tuple[str, dict[str, Rendered]]]:
    """After each Helm command: its release, and all that are installed."""
    # What serves before the recipe begins.
    found = {}
    if recipe in PLANNED:
        found["gptoss-1"] = render("moe-serve", PLACES["VALUES"], release="gptoss-1")
    for words in RECIPES[recipe]:
        if words[:2] == ["helm", "uninstall"]:
            for release in words[2:]:
                del found[release]
        elif words[0] == "helm":
            assert (words[1] == "upgrade") is (words[2] in found), words
            found[words[2]] = rendered(words)
        else:
            continue
        yield words[2], dict(found)


def last(recipe: str, chart: str) -> Rendered:
    """What the last `helm upgrade` (or install) of a chart gives."""
    given = [words for words in RECIPES[recipe] if f"charts/{chart}" in words]
    return rendered(given[-1])


def documents(path: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all((DEPLOY / path).read_text("utf-8")) if each]


def one(path: str, kind: str) -> Manifest:
    [found] = [each for each in documents(path) if each["kind"] == kind]
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_command_of_ours_is_understood_and_every_file_is_there(recipe: str) -> None:
    assert 7 <= len(RECIPES[recipe]) <= 12
    written = {words[words.index(">") + 1] for words in RECIPES[recipe] if ">" in words}
    for words in RECIPES[recipe]:
        said = words[: words.index(">")] if ">" in words else words
        if said[0] == "moe-serve":
            build_parser().parse_args(said[1:])
        for word in said:
            if re.search(r"\.(yaml|json)$|^deploy/|^charts/", word) and "{" not in word:
                name = word.removeprefix("--from-file=")
                assert name in written or (ROOT / name).exists(), word


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_namespace_has_once_is_installed_once(recipe: str) -> None:
    once = set()
    for _, found in releases(recipe):
        kinds = [key for objects in found.values() for key in objects]
        once.add(sum(kind == "PrometheusRule" for kind, _ in kinds))
        once.add(sum(name.endswith("-devices") for _, name in kinds))
        assert len(kinds) == len(set(kinds))
    # The only release of an engine keeps them; else they go with the old arm, or are not shown.
    assert once <= ({1} if recipe in ENGINES else {0, 1})


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_changes_is_under_test(recipe: str) -> None:
    words = [word for command in RECIPES[recipe] for word in command]
    if "charts/moe-canary" in words:
        given = last(recipe, "moe-canary").only("ConfigMap")["data"]["policy.yaml"]
        rules = parse(yaml.safe_load(given), recipe)
    else:
        rules = load(DEPLOY / "canary/policy.yaml")
    [change] = {PLACES["CANARY"], PLACES["CHANGE"]} & {*words}
    changed = consequences(PLACES["VALUES"], change)
    assert changed
    assert changed <= {*rules.under_test}


def plan_of(recipe: str) -> RolloutPlan:
    if recipe == "docs/rollout.md":
        return plan_file.load(DEPLOY / "canary/plan.yaml")
    [words] = [words for words in RECIPES[recipe] if words[:2] == ["kubectl", "get"]]
    _, _, kind, name, _, path, _, _ = words
    assert (kind, path) == ("configmap", r"jsonpath={.data.plan\.yaml}")
    data = last(recipe, "moe-canary")["ConfigMap", name]["data"]
    return plan_file.parse(yaml.safe_load(data["plan.yaml"]), recipe)


def pods(objects: Rendered) -> int:
    return int(objects.only("Deployment")["spec"]["replicas"])


@pytest.mark.parametrize("recipe", PLANNED)
def test_the_releases_are_the_arms_of_the_plan_and_grow_as_it_says(recipe: str) -> None:
    plan = plan_of(recipe)
    states = [
        {
            release: pods(objects)
            for release, objects in found.items()
            if "Service" in objects.kinds() and release != "verdict"
        }
        for _, found in releases(recipe)
    ]
    judged = {part.label: part.replicas for part in plan.tracks.values()}
    grown = {
        plan.tracks[Track.STABLE].label: plan.promotion.warm_replicas,
        plan.tracks[Track.CANARY].label: plan.promotion.replicas,
    }
    assert plan.capacity.gpus is not None
    # The first command is what gives the others their GPUs.
    assert all(sum(state.values()) <= plan.capacity.gpus for state in states)
    assert judged in states
    assert states[-2:] == [grown, {plan.tracks[Track.CANARY].label: plan.promotion.replicas}]
    assert states.index(judged) < len(states) - 2


@pytest.mark.parametrize("recipe", PLANNED)
def test_the_services_of_the_plan_are_those_of_the_releases(recipe: str) -> None:
    found = next(found for release, found in releases(recipe) if release == "gptoss-2")
    for part in plan_of(recipe).tracks.values():
        objects = found[part.label]
        service = objects["Service", part.service]["spec"]
        assert part.port in [port["port"] for port in service["ports"]]
        assert service["selector"].items() <= objects.pod["metadata"]["labels"].items()
        assert objects.pod["metadata"]["labels"]["moe-serve.io/arm"] == part.label


def test_the_old_arm_of_the_shipped_plan_can_take_everything_back_through_the_watch() -> None:
    for recipe in PLANNED:
        plan = plan_of(recipe)
        assert plan.promotion.warm_replicas >= plan.capacity.pods_for_all_traffic


def test_the_shipped_policy_expects_the_shares_that_a_baseline_gives() -> None:
    registered = load(DEPLOY / "canary/policy.yaml")
    for step in plan_of("docs/rollout.md").steps:
        compared = step.weights.canary + step.weights.baseline
        assert step.weights.canary / compared == registered.canary_share
    asked = [words for words in RECIPES["A person with a shell"] if "--start" in words]
    assert {words[words.index("--stable-label") + 1] for words in asked} == {"baseline"}


@pytest.mark.parametrize("recipe", ENGINES)
def test_the_judge_of_an_engine_is_whom_the_engine_asks(recipe: str) -> None:
    folder = "argo/analysis-templates.yaml" if recipe == "Argo Rollouts" else "flagger/canary.yaml"
    judge = last(recipe, "moe-canary")
    service = judge.only("Service")
    address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    asked = set(re.findall(r"http://[^/\s]+", (DEPLOY / folder).read_text("utf-8")))
    assert asked == {address}
    answers = [v for v in judge.spec["volumes"] if v["name"] == "quality"]
    [made] = [w for w in RECIPES[recipe] if w[:3] == ["kubectl", "create", "configmap"]]
    assert [volume["configMap"]["name"] for volume in answers] == [made[3]]
    assert f"--quality=/etc/moe-serve/quality/{made[4].partition('=')[2]}" in judge.server["args"]
    # The engine's steps change the share, so none can be expected.
    rules = parse(yaml.safe_load(judge.only("ConfigMap")["data"]["policy.yaml"]), recipe)
    assert rules.canary_share is None
    # It comes when both arms have pods: what an arm lacks before counts against it.
    order = [w[2] if w[0] == "helm" else w[0] for w in RECIPES[recipe]]
    assert order.index("moe-serve-judge") > order.index("moe-serve")


def tracks(monitor: Manifest, pod: Manifest) -> set[str | None]:
    """The label `track` that Prometheus gives to each of a monitor's endpoints of a pod, if any."""
    if not monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items():
        return set()
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    ports = {port["name"] for each in containers for port in each.get("ports", ())}
    asked = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert asked == ports & {"http", "metrics"}
    return {_track(each["relabelings"], pod) for each in monitor["spec"]["podMetricsEndpoints"]}


def _track(rules: list[dict[str, Any]], pod: Manifest) -> str | None:
    labels = {
        "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", name): value
        for name, value in pod["metadata"]["labels"].items()
    }
    found = None
    for rule in rules:
        if rule["targetLabel"] != "track":
            continue
        [source] = rule.get("sourceLabels", [None])
        found = rule["replacement"] if source is None else labels.get(source, found)
    return found


def compared(recipe: str) -> list[str]:
    """The values of `track` that the recipe's judge asks for: stable's and the canary's."""
    flags = dict(arg.split("=", 1) for arg in last(recipe, "moe-canary").server["args"][2:])
    assert flags["--arm-label"] == "track"
    return [flags["--stable-label"], flags["--canary-label"]]


def primary(deployment: Manifest) -> Manifest:
    """The pod template of the primary that Flagger makes of a Deployment."""
    selector = deployment["spec"]["selector"]["matchLabels"]
    label = next(name for name in FLAGGERS_LABELS if name in selector)
    pod = deployment["spec"]["template"]
    labels = {**pod["metadata"]["labels"], label: f"{selector[label]}-primary"}
    return {**pod, "metadata": {**pod["metadata"], "labels": labels}}


def test_flaggers_two_arms_are_scraped_as_the_two_that_its_judge_compares() -> None:
    release = last("Flagger", "moe-serve")
    target = release.only("Deployment")
    theirs, ours = (
        one("flagger/podmonitor.yaml", "PodMonitor"),
        release.only("PodMonitor", "gptoss"),
    )
    arms = (primary(target), target["spec"]["template"])
    stable, canary = compared("Flagger")
    assert [tracks(theirs, pod) | tracks(ours, pod) for pod in arms] == [{stable}, {canary}]
    assert [bool(tracks(theirs, pod)) for pod in arms] == [True, False]


def test_flaggers_two_arms_have_room() -> None:
    plan = plan_of("Plain Gateway API")
    assert plan.capacity.gpus is not None
    for _, found in releases("Flagger"):
        assert 2 * pods(found["gptoss"]) <= plan.capacity.gpus


def test_flagger_writes_no_object_of_the_release_and_tells_its_pods_from_others() -> None:
    release = last("Flagger", "moe-serve")
    target = release.only("Deployment")
    spec = one("flagger/canary.yaml", "Canary")["spec"]
    assert spec["targetRef"]["name"] == target["metadata"]["name"]
    name = spec["service"]["name"]
    assert not {name, f"{name}-primary", f"{name}-canary"} & {name for _, name in release}
    assert "HTTPRoute" not in release.kinds()
    # Its Services select by this label alone.
    other = render("moe-serve", release="gptoss-1").pod["metadata"]["labels"]
    label = next(n for n in FLAGGERS_LABELS if n in target["spec"]["selector"]["matchLabels"])
    ours = target["spec"]["template"]["metadata"]["labels"][label]
    assert other[label] not in (ours, f"{ours}-primary")
    ports = [port["name"] for port in release.server["ports"]]
    assert spec["service"]["targetPort"] in ports


def test_argos_two_arms_are_scraped_as_the_two_that_its_judge_compares() -> None:
    release = last("Argo Rollouts", "moe-serve")
    rollout = one("argo/rollout.yaml", "Rollout")["spec"]
    assert rollout["workloadRef"]["name"] == release.only("Deployment")["metadata"]["name"]
    assert pods(release) == 0
    found = []
    for arm in ("stable", "canary"):
        added = rollout["strategy"]["canary"][f"{arm}Metadata"]["labels"]
        labels = {**release.pod["metadata"]["labels"], **added}
        pod = {**release.pod, "metadata": {"labels": labels}}
        found.append(tracks(release.only("PodMonitor", "gptoss"), pod))
    assert found == [{each} for each in compared("Argo Rollouts")]


def test_argos_services_have_the_releases_pods() -> None:
    release = last("Argo Rollouts", "moe-serve")
    services = [each for each in documents("argo/rollout.yaml") if each["kind"] == "Service"]
    assert len(services) == 2
    for service in services:
        assert service["spec"]["selector"].items() <= release.pod["metadata"]["labels"].items()
        [port] = service["spec"]["ports"]
        assert port["targetPort"] in [each["name"] for each in release.server["ports"]]


def test_argos_canary_has_the_pods_for_its_weight_before_it_gets_it() -> None:
    rollout = one("argo/rollout.yaml", "Rollout")["spec"]
    share = 0.0
    for step in rollout["strategy"]["canary"]["steps"]:
        scale = step.get("setCanaryScale", {})
        if "replicas" in scale:
            share = 100 * scale["replicas"] / rollout["replicas"]
        share = scale.get("weight", share)
        assert step.get("setWeight", 0) <= share


@pytest.mark.parametrize(
    ("recipe", "path", "kind"),
    [
        ("Argo Rollouts", "argo/rollout.yaml", "Rollout"),
        ("Flagger", "flagger/canary.yaml", "Canary"),
    ],
)
def test_an_engine_waits_as_long_as_the_chart_does(recipe: str, path: str, kind: str) -> None:
    spec = one(path, kind)["spec"]
    expected = last(recipe, "moe-serve").only("Deployment")["spec"]["progressDeadlineSeconds"]
    assert spec["progressDeadlineSeconds"] == expected
