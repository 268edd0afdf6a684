"""The judge and the controller: what runs, what it may do, who reaches it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_serve.cli.main import main
from moe_serve.config.policy_file import load, parse
from tests.charts.environments import ALL, Offer
from tests.charts.rendering import Rendered, render

EVERYTHING = "tests/charts/values/moe-canary.yaml"
DIRECT = "tests/charts/values/moe-canary-direct.yaml"
JUDGE = {"source.prometheus.url": "http://prometheus:9090"}
CONTROLLER = {**JUDGE, "mode": "controller", "controller.plan": {"name": "gptoss"}}
ACTIVE = {**CONTROLLER, "controller.shadow": False}
OFFERS = tuple(offer for offer in ALL if offer.chart == "moe-canary")


def args(objects: Rendered) -> list[str]:
    return list(objects.server["args"])


@pytest.mark.parametrize(
    ("release", "given", "name"),
    [
        ("a", {}, "a-moe-canary"),
        ("my-moe-canary", {}, "my-moe-canary"),
        ("a", {"nameOverride": "judge"}, "a-judge"),
        ("x" * 53, {}, "x" * 39 + "-abe77856"),
        ("moe-canary" + "x" * 43, {}, "moe-canary" + "x" * 29 + "-ce4fa778"),
    ],
)
def test_objects_are_named_after_the_release(release: str, given: Any, name: str) -> None:
    found = render("moe-canary", release=release, set={**JUDGE, **given})
    assert ("Deployment", name) in found


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_the_policy_is_one_that_the_judge_takes(offer: Offer, tmp_path: Path) -> None:
    objects = render("moe-canary", *offer.files, release=offer.release)
    file = tmp_path / "policy.yaml"
    file.write_text(objects.only("ConfigMap")["data"]["policy.yaml"], "utf-8")
    load(file)
    assert main(["canary", "power", "--policy-file", str(file), "--block-noise", "0.0134"]) == 0


@pytest.mark.parametrize(
    "offer", [offer for offer in OFFERS if "production" in offer.name], ids=lambda offer: offer.name
)
def test_the_controller_takes_its_arguments(
    offer: Offer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of them are good: it is a cluster that it asks for last."""
    objects = render("moe-canary", *offer.files, release=offer.release)
    words = [word.replace("/etc/moe-serve", str(tmp_path)) for word in args(objects)]
    words = [word.replace("/var/lib/moe-serve", str(tmp_path)) for word in words]
    (tmp_path / "rules").mkdir()
    for name, text in objects.only("ConfigMap")["data"].items():
        (tmp_path / "rules" / name).write_text(text, "utf-8")
    for word in words:
        flag, _, path = word.partition("=")
        if flag.endswith("-file") and not Path(path).exists():
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text("https://there.example/x", "utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("moe-serve: no cluster: ")


@pytest.mark.parametrize("baseline", [False, True])
def test_where_the_plan_has_a_baseline_the_canary_is_compared_with_it(baseline: bool) -> None:
    given = CONTROLLER | (
        {"controller.plan.arms.baseline": {"service": "b", "replicas": 1}} if baseline else {}
    )
    assert ("--stable-label=stable" in args(render("moe-canary", set=given))) is not baseline
    named = render("moe-canary", set={**given, "source.stable": "b"})
    assert "--stable-label=b" in args(named)


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_what_helm_renders_of_the_policy_is_what_was_written(offer: Offer) -> None:
    written: dict[str, Any] = {}
    for file in offer.files:
        given = yaml.safe_load((Path(__file__).parents[2] / file).read_text("utf-8"))
        for part, values in given.get("policy", {}).items():
            merged = isinstance(values, dict) and isinstance(written.get(part), dict)
            written[part] = {**written[part], **values} if merged else values
    rendered = render("moe-canary", *offer.files).only("ConfigMap")["data"]["policy.yaml"]
    assert parse(yaml.safe_load(rendered), "rendered") == parse(written, "written")


@pytest.mark.parametrize("given", [JUDGE, CONTROLLER], ids=["judge", "controller"])
def test_the_pod_is_confined(given: Any) -> None:
    objects = render("moe-canary", set=given)
    for spec in (objects.spec, objects.only("Pod")["spec"]):
        assert spec["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 2000, "runAsGroup": 0, "fsGroup": 2000,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert spec["enableServiceLinks"] is False
        [container] = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "privileged": False,
            "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


def test_a_judge_has_no_right_and_no_token() -> None:
    objects = render("moe-canary", set=JUDGE)
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & objects.kinds()
    assert objects.spec["automountServiceAccountToken"] is False
    assert objects.only("ServiceAccount")["automountServiceAccountToken"] is False


def test_only_the_controllers_pod_gets_a_token() -> None:
    objects = render("moe-canary", set=CONTROLLER)
    assert objects.spec["automountServiceAccountToken"] is True
    assert objects.only("ServiceAccount")["automountServiceAccountToken"] is False
    assert objects.only("Pod", "-test")["spec"]["automountServiceAccountToken"] is False


def rights(objects: Rendered) -> set[tuple[str, str, str, str]]:
    """Group, resource, name (or *) and verb of whatever is allowed."""
    return {
        (group, resource, name, verb)
        for rule in objects.only("Role")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


GATEWAY, LEASES = "gateway.networking.k8s.io", "coordination.k8s.io"
LOOKS = {
    (group, resource, "*", verb)
    for group, resource in (("", "pods"), ("discovery.k8s.io", "endpointslices"))
    for verb in ("get", "list", "watch")
}
READS = {
    (GATEWAY, "httproutes", "gptoss", "get"),
    ("", "configmaps", "gptoss-rollout", "get"),
    (LEASES, "leases", "gptoss-rollout", "get"),
}
WRITES = {
    (GATEWAY, "httproutes", "gptoss", "patch"),
    (GATEWAY, "httproutes", "*", "create"),
    ("", "configmaps", "gptoss-rollout", "patch"),
    ("", "configmaps", "*", "create"),
    (LEASES, "leases", "gptoss-rollout", "update"),
    (LEASES, "leases", "*", "create"),
    ("", "events", "*", "create"),
}


def test_a_shadow_may_look_and_write_nothing() -> None:
    assert rights(render("moe-canary", set=CONTROLLER)) == LOOKS | READS


def test_an_active_controller_writes_three_objects_by_name() -> None:
    assert rights(render("moe-canary", set=ACTIVE)) == LOOKS | READS | WRITES


def test_a_shared_route_is_not_the_controllers_to_create() -> None:
    plan = {"name": "gptoss", "route": {"name": "chat", "owner": "shared"}}
    found = rights(render("moe-canary", set={**ACTIVE, "controller.plan": plan}))
    assert (GATEWAY, "httproutes", "*", "create") not in found
    assert (GATEWAY, "httproutes", "chat", "patch") in found
    assert (GATEWAY, "httproutes", "gptoss", "patch") not in found


def test_the_rights_are_the_controllers_account_s() -> None:
    objects = render("moe-canary", set=ACTIVE)
    binding = objects.only("RoleBinding")
    role = objects.only("Role")["metadata"]["name"]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role,
    }  # fmt: skip
    account = objects.spec["serviceAccountName"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "llm"}]
    assert objects.only("ServiceAccount")["metadata"]["name"] == account


# --- commands


def test_the_judges_command_is_the_clis_own() -> None:
    given = {
        **JUDGE, "source.prometheus.selector": 'namespace="llm"',
        "comparison.start": "2026-05-01T12:00:00Z",
        "comparison.quality.existingConfigMap": "answers",
    }  # fmt: skip
    assert args(render("moe-canary", set=given)) == [
        "canary",
        "serve",
        "--policy-file=/etc/moe-serve/rules/policy.yaml",
        "--listen=0.0.0.0:9500",
        "--every=60",
        "--prometheus=http://prometheus:9090",
        '--selector=namespace="llm"',
        "--arm-label=track",
        "--stable-label=stable",
        "--canary-label=canary",
        "--quality=/etc/moe-serve/quality/quality.json",
        "--start=2026-05-01T12:00:00Z",
        "--audit=/var/lib/moe-serve/audit.jsonl",
    ]


def test_the_controllers_command_is_the_clis_own() -> None:
    assert args(render("moe-canary", EVERYTHING)) == [
        "canary",
        "run",
        "--rollout-file=/etc/moe-serve/rules/plan.yaml",
        "--active",
        "--policy-file=/etc/moe-serve/rules/policy.yaml",
        "--listen=0.0.0.0:9501",
        "--every=10",
        "--judge-every=60",
        "--prometheus=https://prometheus.example.com/tenant",
        '--selector=namespace="llm"',
        "--arm-label=track",
        "--stable-label=stable",
        "--canary-label=canary",
        "--bearer-token-file=/etc/moe-serve/token/token",
        "--ca-file=/etc/moe-serve/ca/ca.crt",
        "--quality=/etc/moe-serve/quality/quality.json",
        "--slack-file=/etc/moe-serve/slack/url",
        "--webhook-file=/etc/moe-serve/webhook/url",
        "--identity=pod",
    ]


def test_a_shadow_is_not_active() -> None:
    assert "--active" not in args(render("moe-canary", set=CONTROLLER))


def test_a_judge_without_prometheus_asks_every_pods_exporter() -> None:
    found = [each for each in args(render("moe-canary", DIRECT)) if "exporter" in each]
    assert found == [
        "--exporter=stable=http://10.0.0.1:9400/metrics",
        "--exporter=canary=http://10.0.0.2:9400/metrics",
    ]


@pytest.mark.parametrize("mode", ["judge", "controller"])
def test_every_flag_is_one_that_the_command_line_knows(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = {"judge": "serve", "controller": "run"}[mode]
    with pytest.raises(SystemExit):
        main(["canary", verb, "--help"])
    known = capsys.readouterr().out
    objects = [
        render("moe-canary", *offer.files, release=offer.release)
        for offer in OFFERS
        if offer.name != "everything/moe-canary"
    ]
    flags = {
        each.partition("=")[0]
        for found in objects
        if args(found)[1] == verb
        for each in args(found)[2:]
    }
    assert flags
    assert {flag for flag in flags if flag not in known} == set()


# --- files


def test_secrets_and_answers_are_mounted_from_what_exists() -> None:
    objects = render("moe-canary", EVERYTHING)
    assert "Secret" not in objects.kinds()
    volumes = {each["name"]: each for each in objects.spec["volumes"]}
    for name, secret in (("token", "token"), ("ca", "ca"), ("slack", "slack"), ("webhook", "hook")):
        assert volumes[name]["secret"] == {"secretName": secret, "defaultMode": 0o440}
        assert {
            "name": name, "mountPath": f"/etc/moe-serve/{name}", "readOnly": True,
        } in objects.server["volumeMounts"]  # fmt: skip
    assert volumes["quality"]["configMap"] == {"name": "answers", "optional": True}
    assert volumes["rules"]["configMap"] == {"name": "gptoss-1-moe-canary"}
    assert "audit" not in volumes
    mounted = {each["name"]: each.get("readOnly") for each in objects.server["volumeMounts"]}
    assert set(mounted) == set(volumes)
    assert [name for name, read_only in mounted.items() if not read_only] == ["tmp"]


@pytest.mark.parametrize(
    ("audit", "volume"),
    [
        ({}, {"emptyDir": {"sizeLimit": "256Mi"}}),
        (
            {"audit.type": "claim", "audit.claim": "c"},
            {"persistentVolumeClaim": {"claimName": "c"}},
        ),
    ],
)
def test_the_audit_log_is_where_it_was_asked_for(audit: Any, volume: Any) -> None:
    objects = render("moe-canary", set={**JUDGE, **audit})
    assert {"name": "audit", **volume} in objects.spec["volumes"]
    assert {"name": "audit", "mountPath": "/var/lib/moe-serve"} in objects.server["volumeMounts"]
    kind = objects.only("Deployment")["spec"]["strategy"]["type"]
    assert kind == ("Recreate" if audit else "RollingUpdate")


def test_other_rules_begin_the_comparison_anew_and_equal_ones_do_not() -> None:
    one, same, other = (
        render("moe-canary", set={**JUDGE, **more}).pod
        for more in ({}, {"service.port": 80}, {"policy": {"speed": {"margin": 0.05}}})
    )
    assert one == same != other


# --- who reaches it


def test_the_service_is_the_judges() -> None:
    objects = render("moe-canary", set=JUDGE)
    service = objects.only("Service")["spec"]
    assert service["selector"] == objects.only("Deployment")["spec"]["selector"]["matchLabels"]
    [port] = service["ports"]
    assert (port["port"], port["targetPort"]) == (9500, "http")
    assert objects.server["ports"] == [{"name": "http", "containerPort": 9500}]
    [controllers] = render("moe-canary", set=CONTROLLER).server["ports"]
    assert controllers["containerPort"] == 9501


def test_a_source_that_is_down_neither_restarts_nor_hides_the_judge() -> None:
    server = render("moe-canary", set=JUDGE).server
    assert server["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert server["startupProbe"]["httpGet"]["path"] == "/healthz"
    # 200 with KEEP_GOING when data is missing.
    assert server["readinessProbe"]["httpGet"]["path"] == "/v1/verdict?detail=false"


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://prometheus:9090", 9090),
        ("http://prometheus", 80),
        ("https://prometheus", 443),
        ("https://prometheus:8443/tenant/", 8443),
    ],
)
def test_prometheus_is_reached_at_its_port(url: str, port: int) -> None:
    rules = render("moe-canary", set={"source.prometheus.url": url}).only("NetworkPolicy")["spec"]
    assert {"ports": [{"port": port, "protocol": "TCP"}]} in rules["egress"]


def test_the_network_is_open_to_what_is_named_alone() -> None:
    policy = render("moe-canary", EVERYTHING).only("NetworkPolicy")["spec"]
    [ingress] = policy["ingress"]
    assert ingress["from"] == [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
    ]
    dns, own, prometheus, api, extra = policy["egress"]
    assert [port["port"] for port in dns["ports"]] == [53, 53]
    assert own["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "controller"
    assert prometheus == {
        "ports": [{"port": 9091, "protocol": "TCP"}],
        "to": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
    }
    assert [port["port"] for port in api["ports"]] == [443, 6443]
    assert extra == {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    judge = render("moe-canary", set=JUDGE).only("NetworkPolicy")["spec"]["egress"]
    assert 6443 not in [port["port"] for rule in judge for port in rule["ports"]]


def test_several_controllers_have_a_budget_and_stand_apart() -> None:
    objects = render("moe-canary", EVERYTHING)
    assert objects.only("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    [term] = objects.spec["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    alone = render("moe-canary", set=JUDGE)
    assert "PodDisruptionBudget" not in alone.kinds()
    assert "affinity" not in alone.spec


def test_the_judge_is_scraped_on_request() -> None:
    assert "PodMonitor" not in render("moe-canary", set=JUDGE).kinds()
    monitor = render("moe-canary", EVERYTHING).only("PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_pass_throughs_reach_the_pod() -> None:
    objects = render("moe-canary", EVERYTHING)
    assert objects.server["env"] == [{"name": "TZ", "value": "UTC"}]
    assert objects.server["image"].startswith("mirror.example.com/moe-serve/moe-serve-ops@sha256:")
    assert objects.spec["imagePullSecrets"] == [{"name": "mirror"}]
    assert objects.spec["nodeSelector"] == {"pool": "cpu"}
    assert objects.spec["tolerations"] == [{"key": "cpu", "operator": "Exists"}]
    assert objects.spec["priorityClassName"] == "high"
    assert objects.pod["metadata"]["labels"]["team"] == "llm"
    assert objects.pod["metadata"]["annotations"]["example.com/a"] == "b"


def test_the_test_asks_the_judge() -> None:
    test = render("moe-canary", set=JUDGE).only("Pod", "-test")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    command = test["spec"]["containers"][0]["command"]
    assert command[3:] == ["http://gptoss-1-moe-canary:9500", "judge"]
