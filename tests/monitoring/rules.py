"""The rule files, what they name, and promtool to test them with."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/monitoring/rules"
FILES = (RULES / "recording.yaml", RULES / "alerts.yaml")
_NAME = re.compile(r"\b(?:moe_serve_|vllm:|amd_)[a-zA-Z0-9_]+\b")

# vLLM 0.32, v1/metrics/loggers.py, as scraped.
VLLM = {
    "vllm:generation_tokens_total",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:request_success_total",
}


def tool(name: str) -> str:
    """A tool of Prometheus; `make test-monitoring` says where, else it is on the path."""
    found = os.environ.get(f"MOE_SERVE_{name.upper()}") or shutil.which(name)
    if not found:
        pytest.fail(f"{name} is not installed: run `make test-monitoring`")
    return found


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every file."""
    for file in FILES:
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """Alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def raw_names(expression: str) -> set[str]:
    """Metrics that an expression reads as they are scraped, not from another rule."""
    without_rules = re.sub(r"\b(?:track|track_cell|cell|canary):[a-zA-Z0-9_:]+", "", expression)
    return set(_NAME.findall(without_rules))


def rule_names(expression: str) -> set[str]:
    """Recorded series that an expression reads."""
    return set(re.findall(r"\b(?:track|track_cell|cell|canary):[a-zA-Z0-9_:]+", expression))


Series = Mapping[str, str]


def run_rules(folder: Path, test: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    """`promtool test rules` with one test."""
    file = folder / "test.yaml"
    document = {
        "rule_files": [str(path) for path in FILES],
        "evaluation_interval": "30s",
        "fuzzy_compare": True,
        "tests": [{"interval": "30s", **test}],
    }
    file.write_text(yaml.safe_dump(document))
    return run("test", "rules", str(file))


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """promtool."""
    return subprocess.run(
        [tool("promtool"), *words], check=False, capture_output=True, text=True, timeout=60
    )


def inputs(series: Series) -> Sequence[dict[str, str]]:
    """Series in promtool's form."""
    return [{"series": name, "values": values} for name, values in series.items()]
