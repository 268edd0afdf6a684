"""The pod of an arm: what runs in it, with which rights, how it starts and ends."""

import re
from typing import Any

import pytest

from moe_serve.vllm_plugin.draining import MARK
from tests.charts.environments import DEFAULTS, ENVIRONMENTS, PROFILES, Offer
from tests.charts.rendering import Rendered, render

EVERYTHING = "tests/charts/values/moe-serve.yaml"
OTHERS = "tests/charts/values/moe-serve-claims.yaml"
ARMS = tuple(offer for offer in (*DEFAULTS, *ENVIRONMENTS, *PROFILES) if offer.chart == "moe-serve")
TP8 = {"engine.tensorParallelSize": 8, "gpu.count": 8}


def arm(offer: Offer) -> Rendered:
    return render(offer.chart, *offer.files, release=offer.release)


def pod_specs(objects: Rendered) -> dict[str, Any]:
    """Every pod's specification, by kind and name."""
    found = {}
    for (kind, name), each in objects.items():
        if kind == "Pod":
            found[f"{kind} {name}"] = each["spec"]
        elif "template" in each.get("spec", {}):
            found[f"{kind} {name}"] = each["spec"]["template"]["spec"]
    return found


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def argument(server: dict[str, Any], flag: str) -> str:
    return next(each for each in server["args"] if each.startswith(f"{flag}=")).partition("=")[2]


# --- rights


@pytest.mark.parametrize("offer", ARMS, ids=lambda offer: offer.name)
def test_every_container_is_confined(offer: Offer) -> None:
    for name, spec in pod_specs(arm(offer)).items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(spec):
            confined = container["securityContext"]
            assert confined["allowPrivilegeEscalation"] is False, (name, container["name"])
            assert confined["readOnlyRootFilesystem"] is True, (name, container["name"])
            assert confined["capabilities"] == {"drop": ["ALL"]}, (name, container["name"])
            assert not confined.get("privileged")


@pytest.mark.parametrize("offer", ARMS, ids=lambda offer: offer.name)
def test_no_pod_shares_anything_with_its_host(offer: Offer) -> None:
    for spec in pod_specs(arm(offer)).values():
        assert not {"hostIPC", "hostPID", "hostNetwork"} & set(spec)
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume]


@pytest.mark.parametrize("offer", ARMS, ids=lambda offer: offer.name)
def test_no_pod_gets_a_token_or_the_names_of_services(offer: Offer) -> None:
    objects = arm(offer)
    for spec in pod_specs(objects).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
    assert objects.only("ServiceAccount")["automountServiceAccountToken"] is False


def test_user_and_groups_are_those_of_the_image() -> None:
    security = render("moe-serve").spec["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (2000, 0, 2000)
    assert security["fsGroupChangePolicy"] == "OnRootMismatch"
    assert "supplementalGroups" not in security


def test_all_render_groups_are_the_pods_too() -> None:
    spec = render("moe-serve", set={"gpu.renderGroups": [44, 104, 109]}).spec
    assert spec["securityContext"]["supplementalGroups"] == [44, 104, 109]


def test_on_openshift_no_user_or_group_is_named() -> None:
    for spec in pod_specs(render("moe-serve", "charts/moe-serve/profiles/openshift.yaml")).values():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(spec["securityContext"])


def test_what_restricted_forbids_is_only_there_on_request() -> None:
    spec = render("moe-serve", OTHERS).spec
    server = spec["containers"][0]["securityContext"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    assert server["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
    assert server["readOnlyRootFilesystem"] is False
    assert {"path": "/var/lib/moe-serve", "type": "Directory"} in [
        volume.get("hostPath") for volume in spec["volumes"]
    ]


def test_secrets_come_from_existing_secrets_alone() -> None:
    objects = render("moe-serve", EVERYTHING)
    assert "Secret" not in objects.kinds()
    assert objects.env["VLLM_API_KEY"] == {"secretKeyRef": {"name": "keys", "key": "api-key"}}
    download = objects.only("Job")["spec"]["template"]["spec"]["containers"][0]
    assert {
        "name": "HF_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}},
    } in download["env"]
    assert "HF_TOKEN" not in objects.env  # the server has the weights already
    test = objects.only("Pod", "-test")["spec"]["containers"][0]
    assert test["env"] == [
        {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api-key"}}}
    ]
    assert render("moe-serve", set={"model.hfToken.existingSecret": "hub"}).env["HF_TOKEN"]


def test_an_existing_account_is_used_as_it_is() -> None:
    objects = render("moe-serve", OTHERS)
    assert "ServiceAccount" not in objects.kinds()
    assert objects.spec["serviceAccountName"] == "theirs"


# --- what runs


def test_the_default_is_gpt_oss_on_one_gpu() -> None:
    objects = render("moe-serve")
    assert objects.server["resources"]["limits"]["amd.com/gpu"] == "1"
    assert objects.server["resources"]["requests"]["amd.com/gpu"] == "1"
    assert argument(objects.server, "--tensor-parallel-size") == "1"
    assert objects.server["args"][0] == "openai/gpt-oss-120b"
    assert argument(objects.server, "--served-model-name") == "openai/gpt-oss-120b"
    assert objects.env["VLLM_ROCM_USE_AITER"] == "1"
    assert objects.env["MOE_SERVE_PADDING"] == "aligned"
    assert objects.env["MOE_SERVE_MAX_NEURON_LOSS"] == "0"


def test_the_recipe_is_whole() -> None:
    assert render("moe-serve").server["args"][1:] == [
        "--served-model-name=openai/gpt-oss-120b",
        "--host=0.0.0.0",
        "--port=8000",
        "--tensor-parallel-size=1",
        "--shutdown-timeout=120",
        "--disable-access-log-for-endpoints=/health,/metrics,/v1/models",
        "--middleware=moe_serve.vllm_plugin.draining.Draining",
        "--attention-backend=ROCM_AITER_UNIFIED_ATTN",
        "-cc.pass_config.fuse_rope_kvcache=True",
        "-cc.use_inductor_graph_partition=True",
        "--block-size=64",
        "--gpu-memory-utilization=0.95",
        "--max-num-seqs=256",
        "--enable-auto-tool-choice",
        "--tool-call-parser=openai",
        "--reasoning-parser=openai_gptoss",
    ]


def test_extra_arguments_come_last_so_that_they_win() -> None:
    args = render("moe-serve", set={"engine.extraArgs": ["--max-num-seqs=8"]}).server["args"]
    assert args[-1] == "--max-num-seqs=8"


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (TP8, ["--tensor-parallel-size=8"]),
        ({"engine.dataParallelSize": 8, "gpu.count": 8}, ["--data-parallel-size=8"]),
        ({"engine.dataParallelSize": 2, "gpu.count": 2}, ["--data-parallel-size=2"]),
        (
            {"engine.dataParallelSize": 8, "gpu.count": 8, "engine.expertParallel": True},
            ["--data-parallel-size=8", "--enable-expert-parallel"],
        ),
    ],
)
def test_parallel_sizes_reach_the_engine_and_the_proof(given: Any, flags: list[str]) -> None:
    objects = render("moe-serve", set=given)
    assert set(flags) <= set(objects.server["args"])
    gpus = given["gpu.count"]
    assert objects.server["resources"]["limits"]["amd.com/gpu"] == str(gpus)
    assert f"--ranks={gpus}" in objects.server["readinessProbe"]["exec"]["command"]
    sizes = {
        "--tp": given.get("engine.tensorParallelSize", 1),
        "--dp": given.get("engine.dataParallelSize", 1),
    }  # fmt: skip
    asked = objects.init("preflight")["command"]
    assert f"--tp={sizes['--tp']}" in asked
    assert (f"--dp={sizes['--dp']}" in asked) is (sizes["--dp"] > 1)
    assert ("--ep" in asked) is ("--enable-expert-parallel" in flags)
    assert f"--ranks={gpus}" in objects.init("exporter")["args"]


def test_one_rank_has_no_flag_of_parallelism_but_its_own() -> None:
    args = render("moe-serve").server["args"]
    assert not [each for each in args if "data-parallel" in each or "expert" in each]


def test_images_are_the_registrys_by_tag_or_digest() -> None:
    objects = render("moe-serve")
    assert objects.server["image"].startswith("ghcr.io/moe-serve/moe-serve:0.1.0-vllm0.32.0")
    mirrored = render("moe-serve", EVERYTHING)
    for spec in pod_specs(mirrored).values():
        assert spec["imagePullSecrets"] == [{"name": "mirror"}]
        for container in containers(spec):
            assert re.match(r"mirror\.example\.com/moe-serve/.*@sha256:", container["image"])


def test_the_preflight_has_the_servers_gpus_mounts_and_environment() -> None:
    objects = render("moe-serve")
    preflight = objects.init("preflight")
    assert preflight["command"] == ["moe-serve", "preflight", "--tp=1", "--model=gpt-oss-120b"]
    assert preflight["resources"]["limits"]["amd.com/gpu"] == "1"
    assert preflight["volumeMounts"] == objects.server["volumeMounts"]
    assert preflight["env"] == objects.server["env"]
    assert preflight["image"] == objects.server["image"]


def test_the_preflight_can_be_left_out() -> None:
    names = [
        each["name"]
        for each in render("moe-serve", set={"preflight.enabled": False}).spec["initContainers"]
    ]
    assert names == ["exporter"]


def test_without_a_gpu_none_is_asked_for() -> None:
    objects = render("moe-serve", "charts/moe-serve/profiles/cpu-local.yaml")
    assert "--no-gpu" in objects.init("preflight")["command"]
    assert "affinity" not in objects.spec
    for container in containers(objects.spec):
        assert not [name for name in container["resources"]["limits"] if "gpu" in name]


def test_the_exporter_needs_no_gpu_and_cannot_unready_the_server() -> None:
    exporter = render("moe-serve").init("exporter")
    assert exporter["restartPolicy"] == "Always"
    assert set(exporter["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    assert not [key for key in exporter if key.endswith("Probe")]
    assert exporter["ports"] == [{"name": "metrics", "containerPort": 9400}]
    assert exporter["args"] == [
        "exporter", "--record-dir=/dev/shm/moe-serve", "--listen=0.0.0.0:9400", "--ranks=1",
    ]  # fmt: skip
    # It reads records, and writes none.
    assert exporter["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm", "readOnly": True}]


def test_server_and_exporter_share_one_memory_that_is_sized_and_counted() -> None:
    objects = render("moe-serve")
    shm = next(each for each in objects.spec["volumes"] if each["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in objects.server["volumeMounts"]
    for amounts in objects.server["resources"].values():
        assert amounts["memory"] == "104Gi"  # 96 and the 8 of /dev/shm


def test_the_server_has_no_cpu_limit() -> None:
    resources = render("moe-serve").server["resources"]
    assert resources["requests"]["cpu"] == "8"
    assert "cpu" not in resources["limits"]


def test_only_named_places_are_writable() -> None:
    objects = render("moe-serve")
    mounts = {each["mountPath"]: each for each in objects.server["volumeMounts"]}
    assert set(mounts) == {"/var/cache/moe-serve", "/tmp", "/dev/shm"}
    sizes = [each["emptyDir"]["sizeLimit"] for each in objects.spec["volumes"]]
    assert sizes == ["100Gi", "2Gi", "8Gi"]


def test_compiled_kernels_of_two_images_never_meet_on_a_claim() -> None:
    claim = {"cache.type": "claim", "cache.claim.name": "jit"}
    one, same, other = (
        next(
            each["subPath"]
            for each in render("moe-serve", set={**claim, **more}).server["volumeMounts"]
            if each["name"] == "cache"
        )
        for more in ({}, {"engine.extraArgs": ["--seed=1"]}, {"image.tag": "other"})
    )
    assert one == same != other
    assert len(one) == 16


def test_pass_throughs_reach_the_pod() -> None:
    objects = render("moe-serve", EVERYTHING)
    spec = objects.spec
    assert {"name": "more", "emptyDir": {}} in spec["volumes"]
    assert {"name": "more", "mountPath": "/more"} in objects.server["volumeMounts"]
    assert objects.server["envFrom"] == [{"configMapRef": {"name": "more"}}]
    assert objects.env["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert objects.init("first")["image"] == objects.server["image"]
    assert spec["containers"][1]["name"] == "beside"
    assert objects[("ConfigMap", "more-gptoss-1")]["data"] == {"a": "b"}
    assert (spec["priorityClassName"], spec["schedulerName"]) == ("high", "other")
    assert spec["runtimeClassName"] == "amd"
    assert objects.pod["metadata"]["labels"]["team"] == "llm"
    assert objects.pod["metadata"]["annotations"]["example.com/a"] == "b"


# --- the proof of the padding


def test_ready_is_who_proves_that_safe_pads_are_in_force() -> None:
    assert render("moe-serve").server["readinessProbe"]["exec"]["command"] == [
        "moe-serve", "preflight", "--proof", "--ranks=1", "--url=http://127.0.0.1:8000/health",
    ]  # fmt: skip


def test_stock_vllm_has_no_proof_to_give() -> None:
    objects = render("moe-serve", set={"padding.policy": "off"})
    assert objects.env["MOE_SERVE_PADDING"] == "off"
    command = objects.server["readinessProbe"]["exec"]["command"]
    assert command[0] == "python3"
    assert "http://127.0.0.1:8000/health" in command[2]


# --- start and end


def test_a_start_may_take_an_hour() -> None:
    probe = render("moe-serve").server["startupProbe"]
    assert probe["httpGet"] == {"path": "/health", "port": "http"}
    assert probe["periodSeconds"] * probe["failureThreshold"] == 3600


@pytest.mark.parametrize(("start", "pull", "drain"), [(3600, 1800, 120), (600, 60, 0)])
def test_the_deadline_of_an_update_covers_the_longest_step(
    start: int, pull: int, drain: int
) -> None:
    spec = render(
        "moe-serve",
        set={"startup.seconds": start, "startup.pullSeconds": pull, "drain.seconds": drain},
    ).only("Deployment")["spec"]
    grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert spec["progressDeadlineSeconds"] == start + pull + grace


@pytest.mark.parametrize("drain", [0, 120, 600])
def test_one_number_says_how_long_streams_may_run_on(drain: int) -> None:
    objects = render("moe-serve", set={"drain.seconds": drain})
    [*shell, line] = objects.server["lifecycle"]["preStop"]["exec"]["command"]
    mark, _, wait = line.partition("; ")
    assert (shell, mark) == (["sh", "-c"], f"touch {MARK}")
    assert "--middleware=moe_serve.vllm_plugin.draining.Draining" in objects.server["args"]
    assert "/tmp" in {mount["mountPath"] for mount in objects.server["volumeMounts"]}
    sleep = int(wait.removeprefix("sleep "))
    assert argument(objects.server, "--shutdown-timeout") == str(drain)
    assert sleep == 15
    assert objects.spec["terminationGracePeriodSeconds"] == sleep + drain + 30


def test_liveness_forgives_a_busy_minute() -> None:
    probe = render("moe-serve").server["livenessProbe"]
    assert probe["httpGet"] == {"path": "/health", "port": "http"}
    assert probe["periodSeconds"] * probe["failureThreshold"] == 60
    assert probe["timeoutSeconds"] == 5


# --- placement


def terms(objects: Rendered) -> list[dict[str, Any]]:
    required = objects.spec["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    return [
        {each["key"]: (each["operator"], each.get("values")) for each in term["matchExpressions"]}
        for term in required["nodeSelectorTerms"]
    ]


def test_nodes_are_chosen_by_device_and_partitioned_ones_left_out() -> None:
    device = {"amd.com/gpu.device-id": ("In", ["75a3", "75b3"])}
    assert terms(render("moe-serve")) == [
        {**device, "amd.com/compute-memory-partition": ("In", ["spx_nps1"])},
        {**device, "amd.com/compute-memory-partition": ("DoesNotExist", None)},
    ]


@pytest.mark.parametrize(
    ("product", "ids"),
    [
        ("MI355X", ["75a3", "75b3"]),
        ("MI350X", ["75a0", "75b0"]),
        ("MI325X", ["74a5", "74b9"]),
        ("MI300X", ["74a1", "74b5"]),
    ],
)
def test_a_product_is_its_device_ids(product: str, ids: list[str]) -> None:
    for term in terms(render("moe-serve", set={"gpu.product": product})):
        assert term["amd.com/gpu.device-id"] == ("In", ids)


def test_further_demands_on_nodes_hold_in_every_term() -> None:
    for term in terms(render("moe-serve", EVERYTHING)):
        assert term["zone"] == ("In", ["a"])


def test_unlabelled_clusters_can_do_without_the_affinity() -> None:
    assert "affinity" not in render("moe-serve", set={"gpu.nodeAffinity": False}).spec


def test_the_resources_name_is_a_value() -> None:
    limits = render("moe-serve", EVERYTHING).server["resources"]["limits"]
    assert limits["amd.com/spx_nps1"] == "1"
    assert "amd.com/gpu" not in limits


def test_pods_are_spread_unless_they_are_packed() -> None:
    spread, packed = (
        render("moe-serve", set={"gpu.placement": each}).spec for each in ("spread", "pack")
    )
    assert [each["whenUnsatisfiable"] for each in spread["topologySpreadConstraints"]] == [
        "ScheduleAnyway"
    ]
    assert "topologySpreadConstraints" not in packed
    assert "podAffinity" not in spread["affinity"]
    [term] = packed["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


def test_a_canary_can_be_where_its_baseline_is() -> None:
    spec = render("moe-serve", set={"gpu.colocateWithArm": "gptoss-1b"}).spec
    [term] = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert labels == {"moe-serve.io/arm": "gptoss-1b"}
    assert term["weight"] == 100


def test_images_can_be_pulled_ahead_onto_the_same_nodes() -> None:
    objects = render("moe-serve", EVERYTHING)
    pull = objects.only("DaemonSet")["spec"]["template"]["spec"]
    assert pull["initContainers"][0]["image"] == objects.server["image"]
    assert pull["affinity"]["nodeAffinity"] == objects.spec["affinity"]["nodeAffinity"]
    assert pull["tolerations"] == objects.spec["tolerations"]
    assert pull["nodeSelector"] == objects.spec["nodeSelector"] == {"pool": "mi355x"}
    for container in containers(pull):
        assert not [name for name in container["resources"]["limits"] if "amd.com" in name]


# --- what makes a pod anew


def test_a_promotion_starts_no_pod_anew() -> None:
    canary, stable = (render("moe-serve", set={"track": each}) for each in ("canary", "stable"))
    assert canary.pod == stable.pod
    assert canary.only("Service")["metadata"]["labels"]["moe-serve.io/track"] == "canary"
    assert stable.only("Service")["metadata"]["labels"]["moe-serve.io/track"] == "stable"


def test_an_arms_name_is_the_releases_unless_it_is_given() -> None:
    assert render("moe-serve").pod["metadata"]["labels"]["moe-serve.io/arm"] == "gptoss-1"
    assert render("moe-serve", EVERYTHING).pod["metadata"]["labels"]["moe-serve.io/arm"] == "blue"


def test_selectors_hold_neither_version_nor_chart_nor_the_users_labels() -> None:
    objects = render("moe-serve", EVERYTHING)
    assert objects.only("Deployment")["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "moe-serve",
        "app.kubernetes.io/instance": "gptoss-1",
        "app.kubernetes.io/component": "server",
    }


def test_the_digest_of_the_configuration_tells_what_is_compared() -> None:
    def digest(**given: Any) -> str:
        found = render("moe-serve", set={k.replace("__", "."): v for k, v in given.items()})
        told = {
            each["metadata"]["annotations"]["moe-serve.io/pod-spec-digest"]
            for each in (found.pod, found.only("Deployment"))
        }
        assert len(told) == 1
        return str(told.pop())

    same = digest()
    assert same == digest(replicas=4, track="canary")
    differing = (
        digest(padding__policy="zero"),
        digest(engine__extraArgs=["--seed=1"]),
        digest(engine__extraEnv=[{"name": "A", "value": "1"}]),
        digest(image__tag="other"),
        digest(drain__seconds=60),
    )
    assert len({same, *differing}) == 6
