"""What must not be installed is refused before anything is created, with its path and its rule."""

import itertools
from typing import Any

import pytest

from moe_serve.preflight.known_bad import KNOWN_BAD, KnownBadQuery, known_bad
from tests.charts.rendering import Refused, refusal, render

TP2 = {"engine.tensorParallelSize": 2, "gpu.count": 2}
TP8 = {"engine.tensorParallelSize": 8, "gpu.count": 8}
SCALED = {
    "autoscaling.enabled": True,
    "autoscaling.prometheus": "http://p:9090",
    "monitoring.podMonitor.enabled": True,
}

SCHEMA = {
    "a typo at the root": ({"replicaz": 2}, "replicaz"),
    "a typo in a group": ({"gpu.conut": 1}, "conut"),
    "a typo deep down": ({"monitoring.podMonitor.enabld": True}, "enabld"),
    "a typo in a gateway": (
        {"route.owner": "helm", "route.gateways": [{"name": "g", "sectionname": "x"}]},
        "sectionname",
    ),
    "a parallel size of 3": (
        {"engine.tensorParallelSize": 3, "gpu.count": 3},
        "tensorParallelSize",
    ),
    "a parallel size of 16": ({"engine.tensorParallelSize": 16}, "tensorParallelSize"),
    "a data parallel size of 3": ({"engine.dataParallelSize": 3}, "dataParallelSize"),
    "a text where a number belongs": ({"replicas": "two"}, "replicas"),
    "a negative number of pods": ({"replicas": -1}, "replicas"),
    "a GPU that is not known": ({"gpu.product": "H100"}, "product"),
    "a GPU resource without a vendor": ({"gpu.resourceName": "gpu"}, "resourceName"),
    "a policy that is not known": ({"padding.policy": "alligned"}, "policy"),
    "a loss above all": ({"padding.maxNeuronLoss": 1.5}, "maxNeuronLoss"),
    "a track that is not known": ({"track": "blue"}, "track"),
    "a purpose that is not known": ({"purpose": "test"}, "purpose"),
    "an environment name in lower case": ({"engine.env": {"vllm_x": "1"}}, "vllm_x"),
    "an environment value that is a number": (
        {"engine.env": {"OMP_NUM_THREADS": 1}},
        "OMP_NUM_THREADS",
    ),
    "a digest that is none": ({"image.digest": "latest"}, "digest"),
    "a route's owner that is not known": ({"route.owner": "argo"}, "owner"),
    "a timeout that is none": ({"route.timeout": "forever"}, "timeout"),
    "a checksum that is none": ({"model.job.checksums": {"a": "abc"}}, "checksums"),
    "a start of no minute": ({"startup.seconds": 30}, "startup"),
    "a start that no probe can count": ({"startup.seconds": 605}, "startup"),
    "root as the user": ({"security.runAsUser": 0}, "runAsUser"),
    "a group id as text": ({"gpu.renderGroups": ["render"]}, "renderGroups"),
    "a secret in the values": ({"apiKey.value": "s3cret"}, "apiKey"),
    "a token in the values": ({"model.hfToken.token": "hf_x"}, "hfToken"),
}  # fmt: skip

RULES = {
    "more GPUs than ranks": ({"gpu.count": 2}, "gpu.count: 2; it must be"),
    "fewer GPUs than ranks": ({"engine.tensorParallelSize": 8}, "gpu.count: 1; it must be"),
    "fewer GPUs than copies": ({"engine.dataParallelSize": 8}, "gpu.count: 1; it must be"),
    "more ranks than a node has GPUs": (
        {"engine.tensorParallelSize": 8, "engine.dataParallelSize": 2, "gpu.count": 8},
        "engine.dataParallelSize: times engine.tensorParallelSize it is 16 GPUs",
    ),
    "experts spread over one GPU": ({"engine.expertParallel": True}, "engine.expertParallel:"),
    "a misspelt VLLM_ name": (
        {"engine.env": {"VLLM_ROCM_USE_AITERR": "1"}},
        "engine.env.VLLM_ROCM_USE_AITERR: vLLM",
    ),
    "a misspelt VLLM_ name further down": (
        {"engine.extraEnv": [{"name": "VLLM_NO_SUCH", "value": "1"}]},
        "engine.extraEnv[0]: vLLM",
    ),
    "a misspelt MOE_SERVE_ name": (
        {"engine.env": {"MOE_SERVE_PADDIN": "zero"}},
        "engine.env.MOE_SERVE_PADDIN: moe-serve knows no",
    ),
    "a name in both environments": (
        {"engine.extraEnv": [{"name": "VLLM_ROCM_USE_AITER", "value": "0"}]},
        "engine.extraEnv[0]: VLLM_ROCM_USE_AITER is in engine.env already",
    ),
    "an argument that a value owns, in its other form": (
        {"engine.extraArgs": ["--seed=1", "--shutdown_timeout 3"]},
        "engine.extraArgs[1]: --shutdown-timeout is the chart's own; set drain.seconds",
    ),
    "an argument that a value owns, in the recipe": (
        {"engine.args": ["-tp=2"]},
        "engine.args[0]: -tp is the chart's own",
    ),
    "a lossy policy without a budget": (
        {"padding.policy": "rounded"},
        "padding.policy: rounded zeroes 6.67 % of the live neurons",
    ),
    "a lossy policy over its budget": (
        {"padding.policy": "rounded", "padding.maxNeuronLoss": 0.05},
        "more than padding.maxNeuronLoss allows (5.00 %)",
    ),
    "the published rule at eight GPUs": (
        {"padding.policy": "rounded", "padding.maxNeuronLoss": 0.07, **TP8},
        "padding.policy: rounded zeroes 28.89 %",
    ),
    "reads past the weights, whatever the budget": (
        {"padding.policy": "rounded", "padding.maxNeuronLoss": 1, "image.aiter": "0.1.15.post1"},
        "padding.policy: rounded breaks the rule uninitialised-read",
    ),
    "splits that end with GELU": (
        {"image.vllm": "0.24.0", "image.aiter": "0.1.13", **TP8},
        "(split-k-gelu): at small batches this AITER ends a split SwiGLU with GELU",
    ),
    "an AITER that may be of any release": (
        {"image.aiter": "0.1.1.dev50+g6214264b1"},
        "(split-k-gelu)",
    ),
    "a vLLM that may be of any release": (
        {"image.vllm": "nightly"},
        "padding.policy: aligned breaks the rule layout-mismatch (vLLM nightly",
    ),
    "the combination that lost 21 points of GSM8K": (
        {"image.vllm": "0.22.1", "image.aiter": "0.1.13.post1", **TP8},
        "image.vllm: 0.22.1 with AITER 0.1.13.post1 on 8 GPU is known to answer wrongly "
        "(vllm-0.22-tensor-parallel): GSM8K fell from 0.896 to 0.684",
    ),
    "the same at two GPUs": (
        {"image.vllm": "0.22.1", "image.aiter": "0.1.13.post1", **TP2},
        "(vllm-0.22-tensor-parallel)",
    ),
    "the release that is reported to answer wrongly": (
        {"image.vllm": "0.23.0", "image.aiter": "0.1.13.post1"},
        "use vLLM 0.24 or newer, or set VLLM_ROCM_USE_AITER_MOE=0, or set engine.allowKnownBad",
    ),
    "a surge without a spare GPU": (
        {"rollout.maxSurge": 1},
        "rollout.maxSurge: 1 more pods need 1",
    ),
    "a surge with too few spare GPUs": (
        {"rollout.maxSurge": 2, "rollout.spareGpus": 8, **TP8},
        "rollout.maxSurge: 2 more pods need 16 spare GPUs, and rollout.spareGpus is 8",
    ),
    "an update that cannot start": ({"rollout.maxUnavailable": 0}, "rollout.maxUnavailable: with"),
    "an update of a single pod, unsaid": ({"replicas": 1}, "rollout.allowDowntime"),
    "an update that takes all pods, unsaid": (
        {"rollout.maxUnavailable": 2},
        "rollout.maxUnavailable: an update takes all 2 replicas away at once",
    ),
    "scaling down to a single pod, unsaid": (SCALED, "rollout.allowDowntime"),
    "scaling without an address": (
        {**SCALED, "autoscaling.prometheus": "", "autoscaling.minReplicas": 2},
        "autoscaling.prometheus:",
    ),
    "scaling on series that nobody labels": (
        {**SCALED, "monitoring.podMonitor.enabled": False, "autoscaling.minReplicas": 2},
        "autoscaling.enabled:",
    ),
    "a smallest number above the largest": (
        {**SCALED, "autoscaling.minReplicas": 9},
        "autoscaling.minReplicas: more than",
    ),
    "two equal arms": ({"comparedWith": "DIGEST"}, "comparedWith: both arms have the same"),
    "an arm beside itself": (
        {"gpu.colocateWithArm": "gptoss-1"},
        "gpu.colocateWithArm: this is the arm itself",
    ),
    "a toleration of broken GPUs": (
        {"tolerations": [{"key": "amd-gpu-unhealthy", "operator": "Exists"}]},
        "tolerations: amd-gpu-unhealthy",
    ),
    "a toleration of everything": (
        {"tolerations": [{"operator": "Exists"}]},
        "tolerations: one without a key",
    ),
    "a claim without a name": ({"model.source": "claim"}, "model.claim.name: missing"),
    "an image volume without a reference": ({"model.source": "image"}, "model.image.reference:"),
    "a relative folder": ({"model.source": "path", "model.path": "a"}, "model.path:"),
    "an absolute folder below a volume": (
        {"model.source": "claim", "model.claim.name": "c", "model.path": "/a"},
        "model.path:",
    ),
    "a way out of the volume": (
        {"model.source": "claim", "model.claim.name": "c", "model.path": "a/../b"},
        "model.path:",
    ),
    "checksums that nobody would check": (
        {"model.job.checksums": {"a": "0" * 64}},
        "model.job.checksums: only the Job",
    ),
    "one cache for several pods on a ReadWriteOnce claim": (
        {"cache.type": "claim", "cache.claim": {"name": "c", "accessMode": "ReadWriteOnce"}},
        "cache.claim.accessMode: ReadWriteOnce",
    ),
    "a cache claim without a name": ({"cache.type": "claim"}, "cache.claim.name: missing"),
    "a cache folder without a name": ({"cache.type": "hostPath"}, "cache.hostPath: missing"),
    "a cache too small for the weights": ({"cache.sizeGiB": 79}, "cache.sizeGiB:"),
    "a route without a gateway": ({"route.owner": "helm"}, "route.gateways: missing"),
    "gateways that nobody would use": (
        {"route.owner": "controller", "route.gateways": [{"name": "g"}]},
        "route.owner:",
    ),
    "other arms that nobody would use": (
        {"route.otherArms": [{"name": "a", "weight": 1}]},
        "route.owner:",
    ),
    "redirects that nobody would use": (
        {"route.redirectGateways": [{"name": "g"}]},
        "route.owner:",
    ),
    "a route to a pool that is not there": ({"route.backend": "InferencePool"}, "route.backend:"),
    "a pool without its picker": ({"inferencePool.enabled": True}, "inferencePool.endpointPicker:"),
    "a test that cannot be passed": ({"tests.minRight": 5}, "tests.minRight:"),
    "a label that selects": (
        {"podLabels": {"app.kubernetes.io/name": "x"}},
        "podLabels: app.kubernetes.io/name",
    ),
    "a label that names the arm": ({"podLabels": {"moe-serve.io/arm": "x"}}, "podLabels:"),
}  # fmt: skip

JUDGE = {"source.prometheus.url": "http://p:9090"}
CONTROLLER = {**JUDGE, "mode": "controller", "controller.plan": {"name": "gptoss"}}
DIRECT = {"source.exporters": {"stable": ["http://a:9400"], "canary": ["http://b:9400"]}}
CANARY = {
    "a typo in the policy": ({**JUDGE, "policy": {"speed": {"margn": 0.1}}}, "margn"),
    "a typo in a guard": ({**JUDGE, "policy": {"guards": {"ttft": {"magin": 1}}}}, "magin"),
    "a guard without a margin": ({**JUDGE, "policy": {"guards": {"ttft": {}}}}, "margin"),
    "a margin of more than all": ({**JUDGE, "policy": {"speed": {"margin": 1.5}}}, "margin"),
    "a way to compare that is not known": ({**JUDGE, "policy": {"quality": {"mode": "x"}}}, "mode"),
    "a source in the policy": (
        {**JUDGE, "policy": {"source": {"history": "a.om"}}},
        "policy.source: the chart's own source says it",
    ),
    "arms in the policy": ({**JUDGE, "policy": {"arms": {"stable": "a"}}}, "policy.arms: the "),
    "a typo in the policy's strata": ({**JUDGE, "policy": {"strata": {"sizes": [1]}}}, "sizes"),
    "a typo in the values": ({**JUDGE, "polcy": {}}, "polcy"),
    "a mode that is not known": ({**JUDGE, "mode": "both"}, "mode"),
    "an address with a password's query": (
        {"source.prometheus.url": "http://p:9090?token=x"},
        "url",
    ),
    "no source": ({}, "source.prometheus.url: missing"),
    "two sources": ({**JUDGE, **DIRECT}, "source.exporters: source.prometheus.url is set too"),
    "one arm's exporters alone": (
        {"source.exporters": {"stable": ["http://a:9400"]}},
        "source.exporters.canary: missing",
    ),
    "two logins": (
        {**JUDGE, "source.prometheus.tokenSecret": "a", "source.prometheus.basicAuthSecret": "b"},
        "source.prometheus.basicAuthSecret: source.prometheus.tokenSecret",
    ),
    "two arms of one label": ({**JUDGE, "source.canary": "stable"}, "source.canary: equal"),
    "a log on no claim": ({**JUDGE, "audit.type": "claim"}, "audit.claim: missing"),
    "one log of two pods": (
        {**JUDGE, "audit.type": "claim", "audit.claim": "c", "replicas": 2},
        "audit.type: several pods",
    ),
    "a plan that nobody carries out": (
        {**JUDGE, "controller.plan": {"name": "a"}},
        "controller.plan: nothing would use it; mode is judge",
    ),
    "a controller without a plan": (
        {**JUDGE, "mode": "controller"},
        "controller.plan.name: missing",
    ),
    "a controller that forgets": (
        {**DIRECT, "mode": "controller", "controller.plan": {"name": "a"}},
        "source.prometheus.url: missing; a controller",
    ),
    "a controller's comparison begun by hand": (
        {**CONTROLLER, "comparison.start": "2026-05-01T12:00:00Z"},
        "comparison.start: the controller",
    ),
    "a label that selects": (
        {**JUDGE, "podLabels": {"app.kubernetes.io/name": "x"}},
        "podLabels: app.kubernetes.io/name",
    ),
}  # fmt: skip


def digest(**options: Any) -> str:
    annotations = render("moe-serve", **options).only("Deployment")["metadata"]["annotations"]
    return str(annotations["moe-serve.io/pod-spec-digest"])


@pytest.mark.parametrize("case", SCHEMA)
def test_the_schema_refuses(case: str) -> None:
    given, named = SCHEMA[case]
    said = refusal("moe-serve", set=given)
    assert "don't meet the specifications of the schema" in said
    assert named in said


OWNED = {
    "--model": "model.name", "--revision": "model.revision",
    "--served-model-name": "model.servedName", "--host": "service.port", "--port": "service.port",
    "--api-key": "apiKey.existingSecret", "--tensor-parallel-size": "engine.tensorParallelSize",
    "-tp": "engine.tensorParallelSize", "--data-parallel-size": "engine.dataParallelSize",
    "-dp": "engine.dataParallelSize", "--enable-expert-parallel": "engine.expertParallel",
    "-ep": "engine.expertParallel", "--shutdown-timeout": "drain.seconds",
    "--disable-access-log-for-endpoints": "nothing: probes",
}  # fmt: skip


@pytest.mark.parametrize("flag", OWNED)
def test_the_chart_refuses_an_argument_that_a_value_owns(flag: str) -> None:
    said = refusal("moe-serve", set={"engine.extraArgs": [f"{flag}=1"]})
    assert f"engine.extraArgs[0]: {flag} is the chart's own; set {OWNED[flag]}" in said


OWNED_ENV = {
    "MOE_SERVE_PADDING": "padding.policy", "MOE_SERVE_MAX_NEURON_LOSS": "padding.maxNeuronLoss",
    "MOE_SERVE_MARKERS": "markers.mode", "MOE_SERVE_MARKER_LAYERS": "markers.layers",
    "MOE_SERVE_MARKER_BUDGET": "markers.budget",
    "MOE_SERVE_ALLOW_KNOWN_BAD": "engine.allowKnownBad",
    "MOE_SERVE_RECORD_DIR": "nothing", "VLLM_API_KEY": "apiKey.existingSecret",
    "HF_TOKEN": "model.hfToken.existingSecret", "VLLM_PLUGINS": "padding.policy",
}  # fmt: skip


@pytest.mark.parametrize("name", OWNED_ENV)
def test_the_chart_refuses_a_variable_that_a_value_owns(name: str) -> None:
    said = refusal("moe-serve", set={"engine.env": {name: "1"}})
    assert f"engine.env.{name}: {name} is the chart's own; set {OWNED_ENV[name]}" in said


@pytest.mark.parametrize("case", RULES)
def test_the_chart_refuses(case: str) -> None:
    given, named = RULES[case]
    if given.get("comparedWith") == "DIGEST":
        given = {"comparedWith": digest()}
    assert named in refusal("moe-serve", set=given)


# Around the edges of every row: releases and builds of vLLM and of AITER, and numbers of GPUs.
_VLLM = ("0.21.0", "0.22.0", "0.22.1+rocm722", "0.23.0", "0.23.1", "0.24.0", "0.32.0")
_AITER = ("0.1.13", "0.1.13.post1", "0.1.14", "0.1.24.post1")
# As real installs have them: candidates, development builds, and what may be of any release.
_BUILDS = (
    ("0.22.1rc1.dev491+g1033ffac2", "0.1.13.post1"), ("v0.23.1rc1", "0.1.13.post1"),
    ("0.33.1rc1.dev20+gabcdef0", "0.1.26"), ("nightly", "0.1.24.post1"),
    ("0.1.0rc2.dev9+g9255fd9fb9.rocm100", "0.1.24.post1"), ("0.24.0", "0.1.13-rc5"),
    ("0.24.0", "0.1.14rc1.dev264+g2e93b80ab.d20260611"), ("0.32.0", "0.1.1.dev50+g6214264b1"),
    ("0.23.0", "0.1.14rc1.dev264+g2e93b80ab.d20260611"), ("0.26.0+rhaiv.5", "unknown"),
    ("0.21.0", "0.1.13.post1.dev3"),
)  # fmt: skip


@pytest.mark.parametrize("vllm", _VLLM)
@pytest.mark.parametrize("product", ["MI355X", "MI300X"])
def test_the_chart_refuses_what_the_server_would_refuse_to_start(vllm: str, product: str) -> None:
    for aiter, ranks in itertools.product(_AITER, (1, 2)):
        same_as_the_server(vllm, aiter, ranks, product)


@pytest.mark.parametrize(("vllm", "aiter"), _BUILDS)
def test_the_chart_and_the_server_judge_builds_alike(vllm: str, aiter: str) -> None:
    for ranks in (1, 2):
        same_as_the_server(vllm, aiter, ranks, "MI355X")


def same_as_the_server(vllm: str, aiter: str, ranks: int, product: str) -> None:
    given = {
        "image.vllm": vllm, "image.aiter": aiter, "gpu.product": product, "gpu.count": ranks,
        "engine.tensorParallelSize": ranks, "padding.policy": "off",
    }  # fmt: skip
    deployment = KnownBadQuery(
        vllm=vllm, aiter=aiter, tp=ranks, gfx={"MI355X": "gfx950"}.get(product, "gfx942"),
        aiter_moe=True, gpt_oss=True,
    )  # fmt: skip
    known = [row.id for row in known_bad(deployment)]
    if known:
        assert f"({known[0]})" in refusal("moe-serve", set=given)
    else:
        render("moe-serve", set=given)


def test_every_row_of_the_known_bad_is_met_by_the_test_above() -> None:
    met = {
        row.id
        for vllm, aiter, ranks in itertools.product(_VLLM, _AITER, (1, 2))
        for row in known_bad(
            KnownBadQuery(
                vllm=vllm, aiter=aiter, tp=ranks, gfx="gfx950", aiter_moe=True, gpt_oss=True
            )
        )
    }
    assert met == {row.id for row in KNOWN_BAD}


@pytest.mark.parametrize("case", CANARY)
def test_the_canary_chart_refuses(case: str) -> None:
    given, named = CANARY[case]
    assert named in refusal("moe-canary", set=given)


ALLOWED = {
    "two equal arms to measure the noise": {"purpose": "aa", "comparedWith": "DIGEST"},
    "arms that differ": {"comparedWith": "DIGEST", "engine.extraArgs": ["--seed=1"]},
    "a declared loss": {"padding.policy": "rounded", "padding.maxNeuronLoss": 0.07},
    "eight GPUs": TP8,
    "a surge with a spare GPU": {"rollout.maxSurge": 1, "rollout.spareGpus": 1},
    "a single pod, said": {"replicas": 1, "rollout.allowDowntime": True},
    "a single pod with a spare GPU": {
        "replicas": 1, "rollout.maxSurge": 1, "rollout.maxUnavailable": 0, "rollout.spareGpus": 1,
    },
    "no pod": {"replicas": 0},
    "a variable of a release to come": {
        "engine.env": {"VLLM_NEW": "1"}, "engine.unknownEnv": ["VLLM_NEW"],
    },
    "the emulated kernel": {"engine.env": {"MOE_SERVE_EMULATE_AITER": "cktile"}},
    "the known-bad release, to measure it": {
        "image.vllm": "0.22.1", "image.aiter": "0.1.13", "engine.allowKnownBad": True, **TP8,
        "padding.policy": "aligned",
    },
    "reads past the weights, to measure them": {
        "padding.policy": "rounded", "image.aiter": "0.1.15.post1", "engine.allowKnownBad": True,
    },
    "the known-bad release on one GPU": {"image.vllm": "0.22.1", "image.aiter": "0.1.13.post1"},
    "splits that end with GELU, forbidden": {
        "image.vllm": "0.24.0", "image.aiter": "0.1.13",
        "engine.env": {"AITER_KSPLIT": "1"}, **TP8,
    },
    "an AITER that is newer than any that was read": {"image.aiter": "0.1.99"},
    "a development build between releases that are right": {
        "image.vllm": "0.30.1rc1.dev301+g3a2bf16da",
        "image.aiter": "0.1.23+rocm7.2.3.76cd9af.d20260914",
    },
    "an unknown AITER with splits forbidden": {
        "image.aiter": "unknown", "engine.env": {"AITER_KSPLIT": "1"},
    },
    "the known-bad release with another model": {
        "image.vllm": "0.23.0", "model.name": "Qwen/Qwen3-235B-A22B",
    },
    "the reported release without AITER": {
        "image.vllm": "0.23.0", "engine.env": {"VLLM_ROCM_USE_AITER": "0"}, "padding.policy": "off",
    },
    "one cache of one pod on a ReadWriteOnce claim": {
        "cache.type": "claim", "cache.claim": {"name": "c", "accessMode": "ReadWriteOnce"},
        "replicas": 1, "rollout.allowDowntime": True,
    },
    "a cache just large enough": {"cache.sizeGiB": 80},
    "a toleration by name": {"tolerations": [{"key": "amd.com/gpu", "operator": "Exists"}]},
    "scaling from two pods": {**SCALED, "autoscaling.minReplicas": 2},
    "all questions": {"tests.minRight": 4},
    "a value shared by a parent chart": {"global.theirs": 1},
}  # fmt: skip


@pytest.mark.parametrize("case", ALLOWED)
def test_the_chart_allows(case: str) -> None:
    given = dict(ALLOWED[case])
    if given.get("comparedWith") == "DIGEST":
        given["comparedWith"] = digest()
    render("moe-serve", set=given)


CANARY_ALLOWED = {
    "a judge": JUDGE,
    "a judge without Prometheus": DIRECT,
    "a controller": CONTROLLER,
    "a log of one pod": {**JUDGE, "audit.type": "claim", "audit.claim": "c"},
    "logs of two pods": {**JUDGE, "replicas": 2},
}


@pytest.mark.parametrize("case", CANARY_ALLOWED)
def test_the_canary_chart_allows(case: str) -> None:
    render("moe-canary", set=CANARY_ALLOWED[case])


def test_a_missing_custom_resource_does_not_break_rendering_offline() -> None:
    on = {"monitoring.podMonitor.enabled": True}
    assert "PodMonitor" in render("moe-serve", set=on, api_versions=()).kinds()


def test_nothing_of_the_defaults_needs_a_custom_resource() -> None:
    known = {"apps/v1", "v1", "policy/v1", "networking.k8s.io/v1"}
    assert {each["apiVersion"] for each in render("moe-serve").values()} <= known


@pytest.mark.parametrize("chart", ["moe-serve", "moe-canary"])
def test_a_cluster_older_than_the_oldest_tested_is_refused(chart: str) -> None:
    with pytest.raises(Refused, match="kubeVersion"):
        render(chart, set=JUDGE if chart == "moe-canary" else {}, kube_version="1.29.9")
    render(chart, set=JUDGE if chart == "moe-canary" else {}, kube_version="1.30.0")
