"""What pods say of themselves follows from their values: the facts that a canary changes."""

from typing import Any

import yaml

from tests.charts.rendering import ROOT

_FACTS = {
    ("image", "vllm"): {"vllm", "torch", "worker_config_digest"},
    ("image", "aiter"): {"aiter", "worker_config_digest"},
    ("padding", "policy"): {"policy", "hidden_pad", "intermediate_pad"},
}


def consequences(stable: str, canary: str) -> set[str]:
    """The facts in which an arm differs from stable, by the files with their values."""
    below, above = (_values(path) for path in (stable, canary))
    return {
        fact
        for (part, key), facts in _FACTS.items()
        if key in above.get(part, {}) and above[part][key] != below.get(part, {}).get(key)
        for fact in facts
    }


def _values(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / path).read_text("utf-8"))
    return found
