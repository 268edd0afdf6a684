"""What a platform team sets first: a stock image, a parent chart, a proxy, its own rules."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from images import pins
from moe_serve.preflight.expected_gpus import PRODUCTS
from tests.charts.rendering import CHARTS, ROOT, Rendered, refusal, render
from tests.charts.test_serving_pod import containers, pod_specs, terms

STOCK = "charts/moe-serve/profiles/stock.yaml"
PROXY = "tests/charts/values/proxy.yaml"
EVERYTHING = "tests/charts/values/moe-serve.yaml"
JOB = {"model.source": "job"}


# --- AMD's image as it is


def test_stock_image_has_nothing_of_this_project_in_its_pod() -> None:
    objects = render("moe-serve", STOCK)
    base = pins.load(pins.PINS.read_text("utf-8"))
    tag = base["bases"]["default"]["tag"]
    assert objects.server["image"] == f"{base['repository']}:{tag}"
    assert "initContainers" not in objects.spec
    assert [each["name"] for each in objects.spec["containers"]] == ["server"]
    written = yaml.safe_dump(objects.server).replace("/var/cache/moe-serve", "")
    written = written.replace("touch /tmp/moe-serve-draining", "")
    assert not re.search("moe.?serve", written, re.IGNORECASE)
    assert objects.server["command"] == ["vllm", "serve"]
    assert objects.server["args"][0] == "openai/gpt-oss-120b"
    assert objects.server["readinessProbe"]["exec"]["command"][0] == "python3"
    assert [port["name"] for port in objects.only("Service")["spec"]["ports"]] == ["http"]


def test_stock_image_writes_only_to_its_volumes() -> None:
    """Its file system is read-only, and user 2000 has neither a name nor a home in it."""
    env = render("moe-serve", STOCK).env
    ours = set(re.findall(r"(\w+)=/var/cache/moe-serve/", (ROOT / "Dockerfile.rocm").read_text()))
    # Without the variable AITER uses the modules that its image has built, and $HOME for others.
    assert {name for name, value in env.items() if "/var/cache/moe-serve/" in value} == ours - {
        "AITER_JIT_DIR"
    }
    assert env["USER"] and env["LOGNAME"]


def test_stock_image_runs_every_container_of_the_release() -> None:
    given = {**JOB, "prePull.enabled": True}
    objects = render("moe-serve", STOCK, set=given)
    for name, spec in pod_specs(objects).items():
        for each in containers(spec):
            assert each["image"].startswith("docker.io/vllm/"), (name, each["name"])


@pytest.mark.parametrize(
    "given",
    [{"padding.policy": "aligned"}, {"monitoring.exporter": True}, {"preflight.enabled": True}],
)
def test_one_part_of_this_project_needs_its_image(given: Mapping[str, Any]) -> None:
    server = render("moe-serve", STOCK, set=given).server
    assert "--middleware=moe_serve.vllm_plugin.draining.Draining" in server["args"]
    assert "command" not in server


# --- a parent chart


def umbrella(folder: Path, *aliases: str) -> Path:
    """A parent chart with this chart under each alias."""
    folder.joinpath("charts").mkdir(parents=True)
    folder.joinpath("charts", "moe-serve").symlink_to(CHARTS / "moe-serve")
    depends = [
        {"name": "moe-serve", "version": ">=0", "alias": alias, "condition": f"{alias}.enabled"}
        for alias in aliases
    ]
    chart = {"apiVersion": "v2", "name": "parent", "version": "0.1.0", "dependencies": depends}
    folder.joinpath("Chart.yaml").write_text(yaml.safe_dump(chart), "utf-8")
    return folder


def test_two_aliases_of_one_release_share_nothing(tmp_path: Path) -> None:
    objects = render(
        umbrella(tmp_path / "parent", "stable", "canary"),
        set={"stable.enabled": True, "canary.padding.policy": "zero", "global.theirs": {"a": 1}},
        release="llm",
    )
    deployments = {name: each for (kind, name), each in objects.items() if kind == "Deployment"}
    assert set(deployments) == {"llm-stable", "llm-canary"}
    arms = {
        each["spec"]["template"]["metadata"]["labels"]["moe-serve.io/arm"]
        for each in deployments.values()
    }
    assert arms == {"llm-stable", "llm-canary"}
    selectors = [each["spec"]["selector"]["matchLabels"] for each in deployments.values()]
    assert selectors[0] != selectors[1]


def test_a_parents_condition_leaves_an_arm_out(tmp_path: Path) -> None:
    chart = umbrella(tmp_path / "parent", "stable", "canary")
    objects = render(chart, set={"canary.enabled": False}, release="llm")
    assert {name for kind, name in objects if kind == "Deployment"} == {"llm-stable"}


def test_a_parents_null_is_refused_in_a_sentence(tmp_path: Path) -> None:
    said = refusal(umbrella(tmp_path / "parent", "stable"), set={"stable.gpu.count": None})
    assert "count" in said
    assert "nil pointer" not in said


_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@pytest.mark.parametrize("release", ["a" * 53, "a", "a" * 47 + "-moe", "x-" * 26 + "x"])
@pytest.mark.parametrize("chart", ["moe-serve", "moe-canary"])
def test_every_object_is_valid_at_every_release_name(chart: str, release: str) -> None:
    values = f"tests/charts/values/{chart}.yaml"
    objects = render(chart, values, release=release)
    for kind, name in objects:
        assert len(name) <= 63, (kind, name)
        assert _NAME.fullmatch(name), (kind, name)
    labels = [
        each["metadata"]["labels"] for each in objects.values() if "labels" in each["metadata"]
    ]
    for each in labels:
        assert all(len(str(value)) <= 63 for value in each.values()), each


def test_two_long_releases_have_names_of_their_own() -> None:
    one, other = ("a" * 52 + end for end in "bc")
    names = [{name for _, name in render("moe-serve", release=each)} for each in (one, other)]
    assert not names[0] & names[1]


# --- the previous chart's values


def test_values_that_the_previous_chart_had_not_are_named() -> None:
    """`--reuse-values` renders with the previous chart's values, where new keys are missing."""
    said = refusal("moe-serve", set={"tmp": None, "probes": None, "gpu.allocation": None})
    for path in ("tmp", "probes", "gpu"):
        assert path in said
    assert "nil pointer" not in said


# --- a corporate network


def download(objects: Rendered) -> dict[str, Any]:
    found: dict[str, Any] = objects.only("Job")["spec"]["template"]["spec"]
    return found


def test_a_proxy_and_a_ca_reach_job_and_server_alike() -> None:
    objects = render("moe-serve", PROXY)
    job = download(objects)
    [container] = job["containers"]
    for each in (container, objects.init("await-model"), objects.server):
        env = {entry["name"]: entry.get("value") for entry in each["env"]}
        assert env["HTTPS_PROXY"] == "http://proxy.example:3128"
        assert env["SSL_CERT_FILE"] == "/etc/corp/ca.pem"
        mount = {"name": "corp-ca", "mountPath": "/etc/corp", "readOnly": True}
        assert mount in each["volumeMounts"], each["name"]
    assert {"name": "corp-ca", "configMap": {"name": "corp-ca"}} in job["volumes"]
    rules = objects.only("NetworkPolicy")["spec"]["egress"]
    ports = [port["port"] for rule in rules if "to" not in rule for port in rule["ports"]]
    assert ports == [53, 53, 3128, 443]


def test_the_jobs_own_environment_wins() -> None:
    given = {
        **JOB, "engine.env": {"HTTPS_PROXY": "http://a", "VLLM_LOGGING_LEVEL": "DEBUG"},
        "engine.extraEnv": [{"name": "NO_PROXY", "value": "a"}],
        "model.job.extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://b"}, {"name": "NO_PROXY", "value": "b"},
        ],
        "model.hfToken.existingSecret": "hub",
    }  # fmt: skip
    [container] = download(render("moe-serve", set=given))["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names))
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (env["HTTPS_PROXY"], env["NO_PROXY"]) == ("http://b", "b")
    assert "VLLM_LOGGING_LEVEL" not in env
    assert "HF_TOKEN" in env


def test_the_jobs_pod_has_annotations_and_a_priority() -> None:
    given = {
        **JOB, "model.job.podAnnotations": {"sidecar.istio.io/inject": "false"},
        "priorityClassName": "high",
    }  # fmt: skip
    objects = render("moe-serve", set=given)
    job = objects.only("Job")["spec"]["template"]
    assert job["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert job["spec"]["priorityClassName"] == "high"
    lower = render("moe-serve", set={**given, "model.job.priorityClassName": "low"})
    assert download(lower)["priorityClassName"] == "low"


def test_keda_logs_in_to_prometheus() -> None:
    given = {
        "autoscaling.authentication.name": "prometheus",
        "autoscaling.authentication.modes": "basic",
        "autoscaling.authentication.kind": "ClusterTriggerAuthentication",
    }  # fmt: skip
    [trigger] = render("moe-serve", EVERYTHING, set=given).only("ScaledObject")["spec"]["triggers"]
    assert trigger["authenticationRef"] == {
        "name": "prometheus", "kind": "ClusterTriggerAuthentication",
    }  # fmt: skip
    assert trigger["metadata"]["authModes"] == "basic"
    [plain] = render("moe-serve", EVERYTHING).only("ScaledObject")["spec"]["triggers"]
    assert "authenticationRef" not in plain
    assert "authModes" not in plain["metadata"]


def test_secrets_go_only_where_they_are_needed() -> None:
    given = {"apiKey.existingSecret": "keys", "model.hfToken.existingSecret": "hub"}
    objects = render("moe-serve", set=given)
    assert {"VLLM_API_KEY", "HF_TOKEN"} <= set(objects.env)
    preflight = {entry["name"] for entry in objects.init("preflight")["env"]}
    assert not {"VLLM_API_KEY", "HF_TOKEN"} & preflight


# --- scheduling and quality of service


def test_equal_cpus_make_the_pod_guaranteed() -> None:
    given = {**JOB, "resources.cpuLimit": 8}
    for container in containers(render("moe-serve", set=given).spec):
        requests, limits = (container["resources"][kind] for kind in ("requests", "limits"))
        assert requests == limits, container["name"]
        assert {"cpu", "memory"} <= set(limits)


def test_a_higher_cpu_limit_leaves_the_pod_burstable() -> None:
    resources = render("moe-serve", set={"resources.cpuLimit": "16"}).server["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["cpu"]) == ("8", "16")


def test_affinity_is_added_to_the_charts_own() -> None:
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
    preferred = [{"weight": 1, "podAffinityTerm": term}]
    node = [{"weight": 5, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    given = {
        "gpu.placement": "pack",
        "affinity": {
            "nodeAffinity": {key: node},
            "podAffinity": {key: preferred},
            "podAntiAffinity": {key: preferred},
        },
    }
    objects = render("moe-serve", set=given)
    affinity = objects.spec["affinity"]
    assert len(terms(objects)) == 2
    assert affinity["nodeAffinity"][key] == node
    assert [each["weight"] for each in affinity["podAffinity"][key]] == [50, 1]
    assert affinity["podAntiAffinity"] == {key: preferred}


def test_required_node_affinity_is_taken_where_the_chart_has_none() -> None:
    required = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}
    given = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    objects = render("moe-serve", set={"gpu.nodeAffinity": False, "affinity": given})
    assert objects.spec["affinity"] == given


def test_topology_spread_is_the_users_with_the_arms_selector() -> None:
    given = [{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2}]
    objects = render("moe-serve", set={"topologySpreadConstraints": given})
    [found] = objects.spec["topologySpreadConstraints"]
    selector = objects.only("Deployment")["spec"]["selector"]
    assert found == {**given[0], "labelSelector": selector}


def test_probes_take_the_users_fields() -> None:
    given = {
        "probes.liveness": {"periodSeconds": 30},
        "probes.readiness": {"httpGet": {"path": "/v1/models", "port": "http"}},
    }
    server = render("moe-serve", set=given).server
    assert server["livenessProbe"]["periodSeconds"] == 30
    assert server["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert "exec" not in server["readinessProbe"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/v1/models"
    assert server["readinessProbe"]["failureThreshold"] == 2


def test_common_labels_and_annotations_are_on_every_object_and_no_template() -> None:
    given = {"commonLabels": {"cost": "a"}, "commonAnnotations": {"example.com/owner": "b"}}
    plain, objects = (render("moe-serve", EVERYTHING, set=each) for each in ({}, given))
    for key, each in objects.items():
        if key == ("ConfigMap", "more-gptoss-1"):
            continue
        assert each["metadata"]["labels"]["cost"] == "a", key
        assert each["metadata"]["annotations"]["example.com/owner"] == "b", key
    assert objects.pod == plain.pod


def test_the_deployment_has_annotations_of_its_own() -> None:
    objects = render("moe-serve", set={"deploymentAnnotations": {"reloader": "true"}})
    assert objects.only("Deployment")["metadata"]["annotations"]["reloader"] == "true"
    assert "reloader" not in objects.pod["metadata"]["annotations"]


@pytest.mark.parametrize("users", [False, True, None])
def test_a_user_namespace_is_asked_for_on_request(users: bool | None) -> None:
    spec = render("moe-serve", set={"security.hostUsers": users}).spec
    assert spec.get("hostUsers") is users


def test_the_service_may_be_a_load_balancer() -> None:
    objects = render("moe-serve", set={"service.type": "LoadBalancer"})
    assert objects.only("Service")["spec"]["type"] == "LoadBalancer"


@pytest.mark.parametrize(
    ("given", "name", "made"),
    [
        ({}, "gptoss-1-moe-serve", True),
        ({"name": "gpt"}, "gpt", True),
        ({"create": False, "name": "theirs"}, "theirs", False),
        ({"create": False}, "default", False),
    ],
)
def test_an_account_is_made_or_taken(given: Mapping[str, Any], name: str, made: bool) -> None:
    values = {f"serviceAccount.{key}": value for key, value in given.items()}
    objects = render("moe-serve", set=values)
    assert objects.spec["serviceAccountName"] == name
    assert (("ServiceAccount", name) in objects) is made


@pytest.mark.parametrize("product", PRODUCTS)
def test_products_and_partitions_reach_the_preflight(product: str) -> None:
    given = {"gpu.product": product, "gpu.partitions": ["cpx_nps4", "spx_nps1"]}
    objects = render("moe-serve", set=given)
    command = objects.init("preflight")["command"]
    assert (f"--product={product}" in command) is (product != "MI355X")
    assert command[-2:] == ["--partition=cpx_nps4", "--partition=spx_nps1"]
    for term in terms(objects):
        assert term["amd.com/gpu.device-id"] == ("In", list(PRODUCTS[product].device_ids))


def test_a_claim_of_one_node_keeps_job_and_pods_on_it() -> None:
    objects = render("moe-serve", set={**JOB, "model.job.accessMode": "ReadWriteOnce"})
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    job, server = download(objects)["affinity"], objects.spec["affinity"]
    assert job["podAffinity"][key] == server["podAffinity"][key]
    [term] = server["podAffinity"][key]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = objects.only("Job")["spec"]["template"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    # Else the Job could bring the claim to a node without GPUs.
    assert job["nodeAffinity"] == server["nodeAffinity"]
    shared = render("moe-serve", set=JOB)
    assert "podAffinity" not in shared.spec["affinity"]
    assert "affinity" not in download(shared)


# --- dynamic resource allocation


def test_devices_are_claimed_instead_of_counted() -> None:
    given = {
        "gpu.allocation": "resourceClaim",
        "gpu.deviceSelectors": ['device.driver == "gpu.amd.com"'],
        "engine.tensorParallelSize": 8, "gpu.count": 8,
    }  # fmt: skip
    objects = render("moe-serve", set=given)
    [request] = objects.only("ResourceClaimTemplate")["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"] == {
        "deviceClassName": "gpu.amd.com", "allocationMode": "ExactCount", "count": 8,
        "selectors": [{"cel": {"expression": 'device.driver == "gpu.amd.com"'}}],
    }  # fmt: skip
    [claim] = objects.spec["resourceClaims"]
    template = objects.only("ResourceClaimTemplate")["metadata"]["name"]
    assert claim == {"name": request["name"], "resourceClaimTemplateName": template}
    for each in (objects.init("preflight"), objects.server):
        assert each["resources"]["claims"] == [{"name": claim["name"]}]
        assert "amd.com/gpu" not in each["resources"]["limits"]
    assert "claims" not in objects.init("exporter")["resources"]
    plain = render("moe-serve")
    assert "ResourceClaimTemplate" not in plain.kinds()
    assert "resourceClaims" not in plain.spec


# --- weights from a bucket


@pytest.mark.parametrize("uri", ["s3://b/gpt-oss-120b", "gs://b/m/", "az://c/m"])
def test_weights_are_streamed_from_a_bucket(uri: str) -> None:
    objects = render(
        "moe-serve", set={"model.source": "objectStorage", "model.objectStorage.uri": uri}
    )
    assert objects.server["args"][0] == uri
    assert objects.server["args"][1] == "--served-model-name=openai/gpt-oss-120b"
    assert objects.env["HF_HUB_OFFLINE"] == "1"
    assert not [each for each in objects.spec["volumes"] if each["name"] == "model"]


# --- alerts


def serving_alerts(**thresholds: Any) -> dict[str, dict[str, Any]]:
    given = {f"monitoring.rules.thresholds.{name}": value for name, value in thresholds.items()}
    objects = render("moe-serve", set={"monitoring.rules.enabled": True, **given})
    groups = objects.only("PrometheusRule")["spec"]["groups"]
    [serving] = [each for each in groups if each["name"] == "moe-serve-serving"]
    return {rule["alert"]: rule for rule in serving["rules"]}


def test_thresholds_are_those_of_the_rule_file_unless_they_are_given() -> None:
    values = yaml.safe_load((CHARTS / "moe-serve" / "values.yaml").read_text("utf-8"))
    thresholds = values["monitoring"]["rules"]["thresholds"]
    text = (ROOT / "deploy/monitoring/rules/alerts.yaml").read_text("utf-8")
    written = dict(re.findall(r"(\S+) # thresholds\.(\w+)", text))
    assert {name: number for number, name in written.items()} == {
        name: str(value) for name, value in thresholds.items()
    }


def test_thresholds_reach_the_alerts() -> None:
    found = serving_alerts(waitingPerPod=4.5, errorRatio=0.002, notReadyFor="2h")
    assert "> 4.5 # thresholds.waitingPerPod" in found["MoeServeRequestsQueue"]["expr"]
    assert "> 0.002 # thresholds.errorRatio" in found["MoeServeRequestErrors"]["expr"]
    assert found["MoeServePodNotReady"]["for"] == "2h"
    assert "> 10 # thresholds.firstTokenSeconds" in found["MoeServeFirstTokenSlow"]["expr"]


def test_pods_may_start_before_the_alert_says_that_they_do_not() -> None:
    start = render("moe-serve").server["startupProbe"]
    minutes = int(serving_alerts()["MoeServePodNotReady"]["for"].removesuffix("m"))
    assert minutes * 60 > start["periodSeconds"] * start["failureThreshold"]
