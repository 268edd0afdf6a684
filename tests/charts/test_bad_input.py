"""Values that were tried and misbehaved: each gives one sentence, or renders what it should."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.charts.rendering import refusal, render

CLAIM = {"model.source": "claim", "model.claim.name": "weights"}
JOB = {"model.source": "job"}
OFFLINE = {"name": "HF_HUB_OFFLINE", "value": "1"}
DIGEST = "sha256:" + "0" * 64

# What Helm 3 says of a key that null has taken out: `GROUP: KEY is required`.
NULLS = {
    "gpu.count": "gpu: count is required",
    "drain.seconds": "drain: seconds is required",
    "startup.seconds": "startup: seconds is required",
    "security.seccomp": "security: seccomp is required",
    "engine.extraArgs": "engine: extraArgs is required",
    "engine.unknownEnv": "engine: unknownEnv is required",
    "monitoring.deviceMetrics": "monitoring: deviceMetrics is required",
    "model": "(root): model is required",
    "image.tag": "image: tag is required",
    "tolerations": "(root): tolerations is required",
}

REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "a registry with a scheme": (
        {"global.imageRegistry": "http://r.example:5000/m"},
        "global.imageRegistry: http://r.example:5000/m has a scheme, which no image's name has; "
        "write HOST[:PORT][/PATH]",
    ),
    "an image's registry with a scheme": (
        {"opsImage.registry": "https://r.example"},
        "opsImage.registry: https://r.example has a scheme",
    ),
    "a flag and its value in one word": (
        {"engine.extraArgs": ["--max-model-len 4096"]},
        'engine.extraArgs[0]: "--max-model-len 4096" is a flag and its value in one word, which '
        "vLLM takes for one flag; write FLAG=VALUE",
    ),
    "pipeline parallelism": (
        {"engine.extraArgs": ["--pipeline-parallel-size=2"]},
        "engine.extraArgs[0]: --pipeline-parallel-size cannot be given: the chart spreads a model "
        "by engine.tensorParallelSize and engine.dataParallelSize alone; set these",
    ),
    "pipeline parallelism, in short": (
        {"engine.args": ["-pp", "2"]},
        "engine.args[0]: -pp cannot be given",
    ),
    "several nodes": (
        {"engine.extraArgs": ["--seed=1", "--nnodes=2"]},
        "engine.extraArgs[1]: --nnodes cannot be given: one pod is one whole server on one node",
    ),
    "another launcher of data parallelism": (
        {"engine.extraArgs": ["--data-parallel-external-lb"]},
        "engine.extraArgs[0]: --data-parallel-external-lb cannot be given",
    ),
    "a file of arguments": (
        {"engine.extraArgs": ["--config=/x.yaml"]},
        "engine.extraArgs[0]: --config cannot be given: its file may set what the chart's values "
        "own; write its arguments into engine.args",
    ),
    "TLS in the server": (
        {"engine.extraArgs": ["--ssl-keyfile=/x", "--ssl-certfile=/y"]},
        "engine.extraArgs[0]: --ssl-keyfile cannot be given: probes, metrics and Service use plain "
        "HTTP; end TLS at the gateway (route.gateways)",
    ),
    "a socket instead of a port": (
        {"engine.extraArgs": ["--uds=/tmp/s"]},
        "engine.extraArgs[0]: --uds cannot be given: probes and Service use TCP port 8000",
    ),
    "the beginning of an owned flag, which vLLM takes too": (
        {"engine.extraArgs": ["--tensor-parallel=2"]},
        "engine.extraArgs[0]: --tensor-parallel-size is the chart's own; set "
        "engine.tensorParallelSize",
    ),
    "the beginning of a refused flag": (
        {"engine.extraArgs": ["--pipeline_par=2"]},
        "engine.extraArgs[0]: --pipeline-parallel-size cannot be given",
    ),
    "a served name that is no label": (
        {"model.servedName": "foo-"},
        'model.servedName: "foo-"; it is also a label, so it takes letters, digits, \'.\', \'_\', '
        "'/' and '-', and begins and ends with a letter or digit",
    ),
    "a name that is no label": ({"model.name": "openai/gpt oss"}, 'model.name: "openai/gpt oss";'),
    "a bucket as the model's name": (
        {"model.name": "s3://b/m"},
        "model.name: s3://b/m is an address, not a name on a hub; for a bucket set model.source to "
        "objectStorage and model.objectStorage.uri",
    ),
    "a bucket without a scheme": (
        {"model.source": "objectStorage", "model.objectStorage.uri": "b/m"},
        'model.objectStorage.uri: "b/m" is no address of a bucket',
    ),
    "a bucket that nothing reads": (
        {"model.objectStorage.uri": "s3://b/m"},
        "model.objectStorage.uri: nothing reads it; set model.source to objectStorage",
    ),
    "a claim's name that is none": (
        {**CLAIM, "model.claim.name": "My_Claim"},
        'model.claim.name: "My_Claim" is no name of a Kubernetes object; it takes small letters, '
        "digits, '-' and '.'",
    ),
    "a cache claim's name that is none": (
        {"cache.type": "claim", "cache.claim.name": "a_b"},
        'cache.claim.name: "a_b" is no name',
    ),
    "a pull secret's name that is none": (
        {"global.imagePullSecrets": ["ok", {"name": "Not_ok"}]},
        'global.imagePullSecrets[1]: "Not_ok" is no name',
    ),
    "a pull secret without a name": (
        {"global.imagePullSecrets": [{"nam": "x"}]},
        "imagePullSecrets",
    ),
    "a variable that the chart sets": (
        {**CLAIM, "engine.extraEnv": [OFFLINE]},
        'engine.extraEnv[0]: HF_HUB_OFFLINE is set to "1" by the chart already; leave it out',
    ),
    "the same in the other list": (
        {**CLAIM, "engine.env": {"HF_HUB_OFFLINE": "0"}},
        "engine.env.HF_HUB_OFFLINE: the chart sets it, since model.source is claim; leave it out",
    ),
    "a variable twice": (
        {"engine.extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        "engine.extraEnv[1]: A stands there twice; name it once",
    ),
    "two addresses of the hub": (
        {
            **JOB, "model.job.endpoint": "http://m:8081",
            "engine.extraEnv": [{"name": "HF_ENDPOINT", "value": "http://n"}],
        },
        "model.job.endpoint: HF_ENDPOINT is in an extraEnv too; give the address once",
    ),
    "a token in the Job's environment": (
        {**JOB, "model.job.extraEnv": [{"name": "HF_TOKEN", "value": "hf_x"}]},
        "model.job.extraEnv[0]: HF_TOKEN is the chart's own; set model.hfToken.existingSecret",
    ),
    "a claim for one node, and pods for two": (
        {**JOB, "model.job.accessMode": "ReadWriteOnce", "replicas": 9},
        "model.job.accessMode: ReadWriteOnce keeps all pods on one node, and 9 pods of 1 GPU do "
        "not fit a node's 8; use ReadWriteMany, or fewer pods",
    ),
    "a cache for one pod, and a surge": (
        {
            "cache.type": "claim", "cache.claim": {"name": "c", "accessMode": "ReadWriteOnce"},
            "replicas": 1, "rollout.maxSurge": 1, "rollout.spareGpus": 1,
        },
        "cache.claim.accessMode: ReadWriteOnce cannot be shared by several pods",
    ),
    "a folder of the node that the pod cannot write": (
        {
            "cache.type": "hostPath", "cache.hostPath": "/var/lib/m",
            "security.runAsGroup": 2000,
        },
        "cache.type: in a hostPath the kubelet makes the image's folder as root's",
    ),
    "node affinity that would replace the chart's": (
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}
                }
            }
        },
        "affinity.nodeAffinity: the chart's own required terms would be lost; put yours into "
        "gpu.nodeExpressions",
    ),
    "affinity of a kind that there is not": ({"affinity": {"podAfinity": {}}}, "podAfinity"),
    "a chart that is switched off, not left out": (
        {"enabled": False},
        "enabled: false; only the condition of a parent chart's dependency reads it",
    ),
    "a label of the chart's own on everything": (
        {"commonLabels": {"helm.sh/chart": "x"}},
        "commonLabels: helm.sh/chart is the chart's own",
    ),
    "a label given twice": (
        {"commonLabels": {"team": "a"}, "podLabels": {"team": "b"}},
        "commonLabels: team is in podLabels too",
    ),
    "a name too long for what is made from it": (
        {"fullnameOverride": "a" * 49},
        "fullnameOverride",
    ),
    "a login of another kind": ({"autoscaling.authentication.modes": "password"}, "modes"),
}  # fmt: skip


@pytest.mark.parametrize("path", NULLS)
def test_a_value_that_is_null_is_named(path: str) -> None:
    """Helm takes the key out of the values, and the schema asks for it."""
    said = refusal("moe-serve", set={path: None})
    assert NULLS[path] in said
    assert "nil pointer" not in said


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_value_gives_one_sentence(case: str) -> None:
    given, sentence = REFUSED[case]
    said = refusal("moe-serve", set=given)
    assert sentence in said
    assert "nil pointer" not in said


def test_enabled_is_what_a_parent_chart_may_set() -> None:
    assert render("moe-serve", set={"enabled": True}) == render("moe-serve")


@pytest.mark.parametrize("secrets", [["x"], [{"name": "x"}]])
def test_pull_secrets_are_names_or_objects(secrets: list[Any]) -> None:
    found = render("moe-serve", set={"global.imagePullSecrets": secrets}).spec
    assert found["imagePullSecrets"] == [{"name": "x"}]


@pytest.mark.parametrize("registry", ["r.example:5000/m/", "r.example:5000/m"])
def test_a_registry_may_end_in_a_slash(registry: str) -> None:
    found = render("moe-serve", set={"global.imageRegistry": registry, "image.digest": DIGEST})
    assert found.server["image"] == f"r.example:5000/m/moe-serve/moe-serve@{DIGEST}"


@pytest.mark.parametrize(
    "args",
    [
        ["--max-model-len", "4096"],
        ['--override-generation-config={"temperature": 0.5, "top_p": 1}'],
        ["--config-format=auto"],
        ["--middleware=theirs.Middleware"],
        ["--max-num-batched-tokens=16384"],
    ],
)
def test_arguments_that_break_nothing_are_taken(args: list[str]) -> None:
    found = render("moe-serve", set={"engine.extraArgs": args}).server["args"]
    assert found[-len(args) :] == args


def test_a_mirrors_port_is_open() -> None:
    given = {**JOB, "model.job.endpoint": "http://m:8081"}
    assert weights_ports(given) == [8081]


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ({}, [443]),
        (CLAIM, []),
        (JOB, [443]),
        ({**JOB, "model.job.endpoint": "https://m"}, [443]),
        ({**JOB, "model.job.endpoint": "http://m/hub"}, [80]),
        ({"engine.env": {"HF_ENDPOINT": "http://m:8081"}}, [8081]),
        ({"engine.extraEnv": [{"name": "HTTPS_PROXY", "value": "http://p:3128"}]}, [3128, 443]),
        ({"engine.extraEnv": [{"name": "https_proxy", "value": "p:3128/"}]}, [3128, 443]),
        (
            {
                "model.source": "objectStorage", "model.objectStorage.uri": "s3://b/m",
                "engine.extraEnv": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}],
            },
            [9000],
        ),
        ({"model.source": "objectStorage", "model.objectStorage.uri": "gs://b/m"}, [443]),
        ({"engine.extraEnv": [{"name": "HTTPS_PROXY", "valueFrom": {}}]}, [443]),
        # What the Job alone is told opens nothing where there is no Job.
        ({"model.job.extraEnv": [{"name": "HTTPS_PROXY", "value": "http://p:3128"}]}, [443]),
    ],
)  # fmt: skip
def test_the_network_is_open_to_the_weights_and_the_proxy(
    given: Mapping[str, Any], ports: list[int]
) -> None:
    assert weights_ports(given) == ports


def weights_ports(given: Mapping[str, Any]) -> list[int]:
    """Ports that are open to everywhere, DNS's aside."""
    policy = render("moe-serve", set=given).only("NetworkPolicy")["spec"]
    anywhere = [rule for rule in policy["egress"] if "to" not in rule]
    return [port["port"] for rule in anywhere for port in rule["ports"] if port["port"] != 53]
