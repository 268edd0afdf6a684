"""The deployment that an engine rolls out, and the project's own manifests at a test's pace."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.charts.rendering import render
from tools.node.fleet import SIMULATED

DEPLOY = Path(__file__).parents[2] / "deploy"
FLAGGER_SECONDS = 2
JUDGE = "http://moe-serve-judge:9500"


def deployment(policy: str, replicas: int, naming: str = "fullnameOverride") -> dict[str, Any]:
    """What the chart's release `gptoss` is to an engine: its names, labels and selector.

    A simulated MI355X node runs it. `naming` is the value that gives the Deployment its name.
    """
    made = render("moe-serve", release="gptoss", set={naming: "gptoss"}).only("Deployment")
    container = {
        "name": "vllm",
        "image": "moe-serve:0.1.0",
        "env": [{"name": "MOE_SERVE_PADDING", "value": policy}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {"amd.com/gpu": "1"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": made["metadata"]["name"], "labels": made["metadata"]["labels"]},
        "spec": {
            "replicas": replicas,
            "selector": made["spec"]["selector"],
            "template": {
                "metadata": {"labels": made["spec"]["template"]["metadata"]["labels"]},
                "spec": {
                    "containers": [container],
                    "nodeSelector": {SIMULATED: "true"},
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    }


def argo(judge: str) -> Iterator[dict[str, Any]]:
    """`deploy/argo`: minutes become seconds, and the judge has the test's address."""
    for document in _documents("argo/analysis-templates.yaml"):
        document["spec"]["args"][0]["value"] = judge
        for metric in document["spec"]["metrics"]:
            metric["interval"] = "1s"
            # The first look that has no answer yet must not use the wait up.
            metric["count"] = metric["inconclusiveLimit"] = 15
        yield document
    for document in _documents("argo/rollout.yaml"):
        if document["kind"] == "Rollout":
            document["spec"]["replicas"] = 2
            for step in document["spec"]["strategy"]["canary"]["steps"]:
                if "pause" in step:
                    step["pause"]["duration"] = "1s"
        yield document


def flagger(judge: str) -> Iterator[dict[str, Any]]:
    """`deploy/flagger`, likewise."""
    for document in _documents("flagger/canary.yaml"):
        document["spec"]["analysis"]["interval"] = f"{FLAGGER_SECONDS}s"
        for hook in document["spec"]["analysis"]["webhooks"]:
            hook["url"] = hook["url"].replace(JUDGE, judge)
        yield document
    yield from _documents("flagger/podmonitor.yaml")


def text(documents: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> str:
    """As `kubectl apply -f -` reads it."""
    return yaml.safe_dump_all(documents)


def _documents(name: str) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((DEPLOY / name).read_text("utf-8"))
