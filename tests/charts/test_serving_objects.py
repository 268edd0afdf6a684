"""What a release of moe-serve brings beside its pods: routes, monitoring, scaling, tests."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHARTS, DEPLOY, Rendered, render

EVERYTHING = "tests/charts/values/moe-serve.yaml"
OTHERS = "tests/charts/values/moe-serve-claims.yaml"
PODMONITOR = {"monitoring.podMonitor.enabled": True}


# --- names and labels


@pytest.mark.parametrize("values", [(), (EVERYTHING,), (OTHERS,)], ids=["default", "all", "other"])
def test_every_object_carries_the_recommended_labels(values: tuple[str, ...]) -> None:
    for key, each in render("moe-serve", *values).items():
        if key == ("ConfigMap", "more-gptoss-1"):
            continue  # the user's own
        labels = each["metadata"]["labels"]
        assert each["metadata"]["namespace"] == "llm", key
        assert labels["app.kubernetes.io/instance"] == "gptoss-1", key
        assert labels["app.kubernetes.io/part-of"] == "moe-serve", key
        assert labels["app.kubernetes.io/component"], key
        if each["kind"] != "Pod":
            assert labels["app.kubernetes.io/managed-by"] == "Helm", key
            assert labels["app.kubernetes.io/version"], key
            assert re.fullmatch(r"moe-serve-\d+\.\d+\.\d+", labels["helm.sh/chart"]), key


@pytest.mark.parametrize(
    ("release", "given", "name"),
    [
        ("a", {}, "a-moe-serve"),
        ("my-moe-serve", {}, "my-moe-serve"),
        ("a", {"nameOverride": "gpt"}, "a-gpt"),
        ("a", {"fullnameOverride": "whole"}, "whole"),
        ("x" * 53, {}, "x" * 39 + "-86787949"),
        ("moe-serve" + "x" * 44, {}, "moe-serve" + "x" * 30 + "-21c3ef41"),
    ],
)
def test_objects_are_named_after_the_release(release: str, given: Any, name: str) -> None:
    assert ("Deployment", name) in render("moe-serve", release=release, set=given)


def test_extra_objects_are_objects_each_and_may_name_the_release() -> None:
    extra = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-" + it}}
        for it in ("a", "b")
    ]
    objects = render("moe-serve", set={"extraObjects": extra})
    assert {("ConfigMap", "gptoss-1-a"), ("ConfigMap", "gptoss-1-b")} <= {*objects}


def test_the_service_finds_the_servers_and_nothing_else() -> None:
    objects = render("moe-serve", EVERYTHING)
    service = objects.only("Service")["spec"]
    assert service["selector"] == objects.only("Deployment")["spec"]["selector"]["matchLabels"]
    assert service["type"] == "ClusterIP"
    assert {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]} == {
        "http": (80, "http"),
        "metrics": (9400, 9400),
    }
    for each in (objects.only("Job")["spec"]["template"], objects.only("Pod", "-test")):
        component = each["metadata"]["labels"]["app.kubernetes.io/component"]
        assert component != service["selector"]["app.kubernetes.io/component"]
    alone = render("moe-serve", OTHERS).only("Service")["spec"]
    assert [port["name"] for port in alone["ports"]] == ["http"]


def test_the_port_of_the_service_is_the_routes_too() -> None:
    given = {"service.port": 8080, "route.owner": "helm", "route.gateways": [{"name": "g"}]}
    objects = render("moe-serve", set=given)
    assert objects.only("Service")["spec"]["ports"][0]["port"] == 8080
    [backend] = objects.only("HTTPRoute")["spec"]["rules"][0]["backendRefs"]
    assert backend["port"] == 8080


# --- routes


@pytest.mark.parametrize("owner", ["controller", "none"])
def test_a_route_that_another_writes_is_not_rendered(owner: str) -> None:
    assert "HTTPRoute" not in render("moe-serve", set={"route.owner": owner}).kinds()


def test_the_release_that_owns_the_route_names_all_arms() -> None:
    given = {
        "route.owner": "helm",
        "route.gateways": [{"name": "public", "namespace": "gateway", "sectionName": "https"}],
        "route.hostnames": ["gptoss.example.com"],
        "route.path": "/v1",
        "route.weight": 90,
        "route.otherArms": [
            {"name": "gptoss-2-moe-serve", "weight": 10}, {"name": "c", "weight": 0, "port": 81},
        ],
    }  # fmt: skip
    assert render("moe-serve", set=given).only("HTTPRoute")["spec"] == {
        "parentRefs": [{"name": "public", "namespace": "gateway", "sectionName": "https"}],
        "hostnames": ["gptoss.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
                # A stream may run for minutes.
                "timeouts": {"request": "0s", "backendRequest": "0s"},
                "backendRefs": [
                    {"name": "gptoss-1-moe-serve", "port": 80, "weight": 90},
                    {"name": "gptoss-2-moe-serve", "port": 80, "weight": 10},
                    {"name": "c", "port": 81, "weight": 0},
                ],
            }
        ],
    }


def test_plain_http_is_only_sent_on() -> None:
    spec = render("moe-serve", EVERYTHING).only("HTTPRoute", "-redirect")["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateway", "sectionName": "http"}]
    assert spec["hostnames"] == ["gptoss.example.com"]
    [rule] = spec["rules"]
    assert rule == {
        "filters": [
            {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}
        ]
    }


def test_a_route_can_point_at_pools() -> None:
    objects = render("moe-serve", EVERYTHING)
    pool = objects.only("InferencePool")["spec"]
    assert pool["selector"]["matchLabels"] == objects.only("Service")["spec"]["selector"]
    assert pool["targetPorts"] == [{"number": 8000}]
    assert pool["endpointPickerRef"] == {
        "name": "picker", "port": {"number": 9002}, "failureMode": "FailOpen",
    }  # fmt: skip
    backends = objects.only("HTTPRoute", "1-moe-serve")["spec"]["rules"][0]["backendRefs"]
    assert [(each["kind"], each["weight"]) for each in backends] == [
        ("InferencePool", 90),
        ("InferencePool", 10),
    ]
    assert not [each for each in backends if "port" in each]


# --- monitoring


def endpoints(objects: Rendered) -> dict[str, dict[str, Any]]:
    spec = objects.only("PodMonitor", "-moe-serve")["spec"]
    return {each["port"]: each for each in spec["podMetricsEndpoints"]}


def test_server_and_exporter_are_scraped_with_the_labels_that_the_rules_need() -> None:
    objects = render("moe-serve", set={**PODMONITOR, "track": "canary"})
    found = endpoints(objects)
    assert set(found) == {"http", "metrics"}
    for each in found.values():
        labels = {rule["targetLabel"]: rule for rule in each["relabelings"]}
        assert set(labels) == {"namespace", "pod", "node", "model", "arm", "track"}
        for name in ("arm", "model"):
            source = f"__meta_kubernetes_pod_label_moe_serve_io_{name}"
            assert labels[name]["sourceLabels"] == [source]
        assert each["interval"] == "15s"
        assert each["path"] == "/metrics"
    spec = objects.only("PodMonitor")["spec"]
    assert spec["selector"]["matchLabels"] == objects.only("Service")["spec"]["selector"]
    assert spec["namespaceSelector"] == {"matchNames": ["llm"]}


def test_the_track_is_the_values_unless_the_pod_has_one_of_its_own() -> None:
    found = endpoints(render("moe-serve", set={**PODMONITOR, "track": "canary"}))
    for each in found.values():
        # Of the values, since a label of the pods could not change without new pods.
        values, pods = (rule for rule in each["relabelings"] if rule["targetLabel"] == "track")
        assert values == {"action": "replace", "targetLabel": "track", "replacement": "canary"}
        # Without the expression an absent label would empty the track.
        assert pods == {
            "action": "replace", "targetLabel": "track", "regex": "(.+)",
            "sourceLabels": ["__meta_kubernetes_pod_label_moe_serve_io_track"],
        }  # fmt: skip


def test_a_plain_prometheus_reads_the_labels_that_the_chart_writes() -> None:
    text = (DEPLOY / "monitoring" / "prometheus.yaml").read_text("utf-8")
    [job] = [
        each for each in yaml.safe_load(text)["scrape_configs"] if each["job_name"] == "moe-serve"
    ]
    objects = render("moe-serve", set={"track": "canary"})
    service = objects.only("Service")
    written = {
        **{
            meta("service_label", name): value
            for name, value in service["metadata"]["labels"].items()
        },
        **{
            meta("pod_label", name): value
            for name, value in objects.pod["metadata"]["labels"].items()
        },
    }
    rules = [rule for rule in job["relabel_configs"] if "_label_" in rule["source_labels"][0]]
    by_target = {}
    for rule in rules:
        [source] = rule["source_labels"]
        if rule.get("action") == "keep":
            assert re.fullmatch(rule["regex"], written[source])
        elif written.get(source) or "regex" not in rule:
            by_target[rule["target_label"]] = written[source]
    assert by_target == {"model": "gpt-oss-120b", "arm": "gptoss-1", "track": "canary"}
    [ports] = [
        rule["regex"] for rule in job["relabel_configs"] if "port" in rule["source_labels"][0]
    ]
    assert set(ports.split("|")) == {port["name"] for port in service["spec"]["ports"]}


def meta(kind: str, label: str) -> str:
    """How Prometheus's discovery calls a label of an object."""
    return f"__meta_kubernetes_{kind}_{re.sub('[^a-zA-Z0-9_]', '_', label)}"


def test_without_an_exporter_only_the_server_is_scraped() -> None:
    found = render("moe-serve", OTHERS).only("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert [each["port"] for each in found] == ["http"]


def test_monitors_and_rules_carry_the_labels_that_a_prometheus_selects() -> None:
    objects = render("moe-serve", EVERYTHING)
    for key in (key for key in objects if key[0] in ("PodMonitor", "PrometheusRule")):
        labels = objects[key]["metadata"]["labels"]
        if not key[1].endswith("-devices"):
            assert labels["release"] == "prometheus", key


def test_the_rules_are_those_of_the_repository() -> None:
    groups = render("moe-serve", EVERYTHING).only("PrometheusRule")["spec"]["groups"]
    expected = []
    for name in ("recording", "alerts"):
        text = (DEPLOY / "monitoring" / "rules" / f"{name}.yaml").read_text("utf-8")
        runbooks = "https://github.com/moe-serve/moe-serve/blob/main/docs/runbooks"
        expected += yaml.safe_load(text.replace("docs/runbooks", runbooks))["groups"]
    assert groups == expected
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert all(rule["annotations"]["runbook_url"].startswith("https://") for rule in alerts)


def test_the_dashboards_are_those_of_the_repository() -> None:
    objects = render("moe-serve", EVERYTHING)
    for source in sorted((DEPLOY / "monitoring" / "dashboards").glob("*.json")):
        config = objects.only("ConfigMap", f"-{source.stem}")
        [text] = config["data"].values()
        assert json.loads(text) == json.loads(source.read_text("utf-8"))
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"] == {"grafana_folder": "moe-serve"}


def test_device_metrics_keep_the_pod_that_they_name() -> None:
    spec = render("moe-serve", EVERYTHING).only("PodMonitor", "-devices")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["kube-amd-gpu"]}
    [endpoint] = spec["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True
    # As AMD's GPU operator calls both (ROCm/gpu-operator, internal/metricsexporter).
    assert endpoint["port"] == "exporter-port"
    assert spec["selector"]["matchLabels"] == {"app.kubernetes.io/name": "metrics-exporter"}


# --- scaling and disruption


def test_the_number_of_pods_is_kedas_when_it_scales() -> None:
    objects = render("moe-serve", EVERYTHING)
    assert "replicas" not in objects.only("Deployment")["spec"]
    scaled = objects.only("ScaledObject")
    spec = scaled["spec"]
    assert spec["scaleTargetRef"] == {"name": "gptoss-1-moe-serve"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 6)
    [trigger] = spec["triggers"]
    query = 'sum(vllm:num_requests_waiting{namespace="llm", arm="blue"})'
    assert trigger["metadata"]["query"] == query
    assert trigger["metadata"]["threshold"] == "8"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 1800
    assert scaled["metadata"]["annotations"] == {"autoscaling.keda.sh/paused-replicas": "4"}


def test_scaling_is_not_frozen_unless_it_is_asked_for() -> None:
    given = {
        **PODMONITOR, "autoscaling.enabled": True, "autoscaling.minReplicas": 2,
        "autoscaling.prometheus": "http://p",
    }  # fmt: skip
    assert "annotations" not in render("moe-serve", set=given).only("ScaledObject")["metadata"]


def test_by_default_an_update_needs_no_spare_gpu() -> None:
    spec = render("moe-serve").only("Deployment")["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }  # fmt: skip
    assert spec["replicas"] == 2
    assert spec["revisionHistoryLimit"] == 3


def test_a_drain_takes_one_pod_at_a_time() -> None:
    objects = render("moe-serve")
    budget = objects.only("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"] == objects.only("Service")["spec"]["selector"]
    none = render("moe-serve", set={"pdb.maxUnavailable": 0}).only("PodDisruptionBudget")
    assert none["spec"]["maxUnavailable"] == 0


def test_a_single_pod_has_no_budget_which_would_block_a_drain() -> None:
    single = {"replicas": 1, "rollout.allowDowntime": True}
    assert "PodDisruptionBudget" not in render("moe-serve", set=single).kinds()


# --- weights


def test_a_job_fetches_weights_once_and_uninstall_keeps_them() -> None:
    objects = render("moe-serve", EVERYTHING)
    job, claim = objects.only("Job"), objects.only("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "200Gi"}},
    }
    # No hook: hooks are deleted by rules that know nothing of a download.
    assert "annotations" not in job["metadata"]
    download = job["spec"]["template"]["spec"]["containers"][0]
    assert download["command"][:2] == ["python3", "-c"]
    model, revision, folder, checksums = download["command"][3:]
    assert model == "openai/gpt-oss-120b"
    assert revision == "b5c939de8f754692c1647ca79fbf85e8c1e70f8a"
    assert folder == f"/models/openai/gpt-oss-120b/{revision}"
    assert json.loads(checksums) == {"model.safetensors.index.json": "0123456789abcdef" * 4}
    assert {"name": "HF_ENDPOINT", "value": "https://hub.example.com"} in download["env"]
    assert objects.server["args"][0] == folder
    assert objects.init("await-model")["command"][3] == folder
    assert objects.env["HF_HUB_OFFLINE"] == "1"
    assert job["spec"]["activeDeadlineSeconds"] == 14400


def test_another_revision_is_another_job_and_an_equal_one_is_the_same() -> None:
    def name(**given: Any) -> str:
        values = {"model.source": "job", **{k.replace("__", "."): v for k, v in given.items()}}
        return str(render("moe-serve", set=values).only("Job")["metadata"]["name"])

    assert name() == name(replicas=4, engine__extraArgs=["--seed=1"])
    assert name() != name(model__revision="b5c939d")


@pytest.mark.parametrize(
    ("given", "volume", "argument"),
    [
        (
            {"model.source": "claim", "model.claim.name": "weights", "model.path": "a/b"},
            {"persistentVolumeClaim": {"claimName": "weights", "readOnly": True}},
            "/models/a/b",
        ),
        (
            {"model.source": "image", "model.image.reference": "r/w:1"},
            {"image": {"reference": "r/w:1", "pullPolicy": "IfNotPresent"}},
            "/models",
        ),
    ],
)
def test_weights_come_from_a_volume_that_cannot_be_written(
    given: Any, volume: Any, argument: str
) -> None:
    objects = render("moe-serve", set=given)
    assert {"name": "model", **volume} in objects.spec["volumes"]
    mount = {"name": "model", "mountPath": "/models", "readOnly": True}
    assert mount in objects.server["volumeMounts"]
    assert objects.server["args"][0] == argument
    assert objects.env["HF_HUB_OFFLINE"] == "1"
    assert "Job" not in objects.kinds()


def test_from_the_hub_the_revision_is_the_engines() -> None:
    objects = render("moe-serve", set={"model.revision": "abc"})
    assert "--revision=abc" in objects.server["args"]
    assert "HF_HUB_OFFLINE" not in objects.env
    assert not [each for each in objects.spec["volumes"] if each["name"] == "model"]


def test_the_airgap_profile_asks_nothing_of_the_internet() -> None:
    objects = render("moe-serve", "charts/moe-serve/profiles/airgap.yaml")
    assert objects.server["image"].startswith("registry.example.com/")
    assert objects.env["HF_HUB_OFFLINE"] == "1"
    for rule in objects.only("NetworkPolicy")["spec"]["egress"]:
        assert 443 not in [port["port"] for port in rule["ports"]]


# --- network


def test_only_gateway_and_prometheus_reach_the_servers() -> None:
    policy = render("moe-serve", EVERYTHING).only("NetworkPolicy")["spec"]

    def sources(rule: dict[str, Any]) -> list[str]:
        return [
            each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            if "namespaceSelector" in each
            else "own"
            for each in rule["from"]
        ]

    http, metrics, extra = policy["ingress"]
    assert (sources(http), http["ports"]) == (
        ["own", "gateway", "monitoring"],
        [{"port": 8000, "protocol": "TCP"}],
    )
    assert (sources(metrics), metrics["ports"]) == (
        ["own", "monitoring"],
        [{"port": 9400, "protocol": "TCP"}],
    )
    assert extra == {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "moe-serve", "app.kubernetes.io/instance": "gptoss-1",
    }  # fmt: skip


@pytest.mark.parametrize(("source", "https"), [("hub", True), ("job", True), ("claim", False)])
def test_the_internet_is_open_only_while_weights_come_from_it(source: str, https: bool) -> None:
    given = {"model.source": source, "model.claim.name": "c"}
    rules = render("moe-serve", set=given).only("NetworkPolicy")["spec"]["egress"]
    anywhere = [port["port"] for rule in rules if "to" not in rule for port in rule["ports"]]
    assert anywhere == [53, 53, *([443] if https else [])]


def test_the_network_policy_can_be_left_out() -> None:
    assert "NetworkPolicy" not in render("moe-serve", OTHERS).kinds()


# --- the test hook


def test_the_test_asks_the_service_and_the_proof() -> None:
    test = render("moe-serve").only("Pod", "-test")
    assert test["metadata"]["annotations"] == {
        "helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation",
    }  # fmt: skip
    asked = json.loads(test["spec"]["containers"][0]["command"][3])
    assert asked["server"] == "http://gptoss-1-moe-serve:80"
    assert asked["exporter"] == "http://gptoss-1-moe-serve:9400"
    assert (asked["model"], asked["ranks"]) == ("openai/gpt-oss-120b", 1)
    assert (asked["policy"], asked["chat"]) == ("aligned", True)
    assert len(asked["questions"]) == 4
    assert asked["min_right"] == 3


@pytest.mark.parametrize(
    "given", [{"padding.policy": "off"}, {"monitoring.exporter": False}], ids=["stock", "silent"]
)
def test_without_a_proof_the_test_asks_for_none(given: Any) -> None:
    test = render("moe-serve", set=given).only("Pod", "-test")
    assert json.loads(test["spec"]["containers"][0]["command"][3])["exporter"] == ""


# --- a new chart


def bumped(folder: Path) -> Path:
    """The chart as its next release: another version, other images."""
    shutil.copytree(CHARTS / "moe-serve", folder)
    meta = yaml.safe_load((folder / "Chart.yaml").read_text("utf-8"))
    meta |= {"version": "9.9.9", "appVersion": "9.9.9"}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(meta), "utf-8")
    values = yaml.safe_load((folder / "values.yaml").read_text("utf-8"))
    values["opsImage"]["tag"] = "9.9.9"
    (folder / "values.yaml").write_text(yaml.safe_dump(values), "utf-8")
    return folder


@pytest.mark.parametrize(
    "values",
    ["deploy/staging/moe-serve.yaml", "deploy/production/moe-serve.yaml", EVERYTHING, OTHERS],
)
def test_a_new_chart_with_equal_values_starts_no_pod_anew(tmp_path: Path, values: str) -> None:
    before, after = (
        render(chart, values) for chart in ("moe-serve", bumped(tmp_path / "moe-serve"))
    )
    assert before.pod == after.pod
    assert (
        before.only("Deployment")["metadata"]["labels"]
        != after.only("Deployment")["metadata"]["labels"]
    )


def test_a_new_chart_changes_neither_the_job_nor_the_claim(tmp_path: Path) -> None:
    before, after = (
        render(chart, EVERYTHING) for chart in ("moe-serve", bumped(tmp_path / "moe-serve"))
    )
    for kind in ("Job", "PersistentVolumeClaim"):
        assert before.only(kind)["spec"] == after.only(kind)["spec"]
        assert before.only(kind)["metadata"]["name"] == after.only(kind)["metadata"]["name"]
