"""The first day with a GPU: one run that an owner can send to the project.

    python -m tools.gpu run --plan accept                           # rehearsed on an NVIDIA GPU
    MOE_SERVE_ACCEPT_MODEL=/models/gpt-oss-120b make accept-gpu     # on an MI355X, with its vLLM

Two equal servers and one with the pads under test: proof of pads, an A/A for the noise of speed and
answers, the gate, the gain, and what markers cost. The result has no host names, addresses, paths
or process numbers in it.
"""

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from moe_serve_emulation.cuda.folders import seeded

from tools.gpu import place
from tools.gpu.stages import chain, engines
from tools.gpu.stages.machine import bandwidth, versions
from tools.gpu.stages.servers import GpuArm, Serving, brief, proven, served

MODEL = "MOE_SERVE_ACCEPT_MODEL"
RESULT = "acceptance.json"
STABLE = chain.STABLE
UNDER_TEST = GpuArm(name="aligned", policy="aligned")
SAME = GpuArm(name="same", policy="zero")
UNMARKED = GpuArm(name="unmarked", policy="zero", markers="off")


def accept() -> dict[str, Any]:
    """Everything that the acceptance result holds, redacted; it is written to a file too."""
    begun = time.monotonic()
    model = os.environ.get(MODEL)
    serving = Serving(
        model=Path(model) if model else seeded(place.WORK / "models", chain.SIZE),
        seeded=model is None,
        real=model is not None,
    )
    work = place.WORK / "accept"
    work.mkdir(parents=True, exist_ok=True)
    arms = (STABLE, UNDER_TEST, SAME, UNMARKED)
    with served(arms, [serving] * len(arms), work) as servers:
        proofs = {arm.name: proven(servers[arm.name]) for arm in arms[:3]}
        records = {arm.name: _record(servers[arm.name]) for arm in arms[:3]}
        names = [UNDER_TEST.name, SAME.name]
        histories, rates = asyncio.run(chain.measured(servers, canaries=names))
        answers = chain.probed(
            {n: s for n, s in servers.items() if n != UNMARKED.name}, names, chain.PROBE
        )
    findings = {name: chain.judged(histories[name], answers[name]) for name in names}
    found = redacted(
        {
            "device": _device(),
            "versions": versions(),
            "copy_bytes_per_second": bandwidth(),
            "proofs": proofs,
            "records": records,
            "tokens_per_second": rates,
            "marker_cost_percent": _marker_cost(rates),
            "comparisons": {
                name: {
                    "verdict": each.judgement.verdict.value,
                    "reason": each.judgement.reason,
                    "kernel": chain.speedup(each.estimates.kernel),
                    "window": chain.speedup(each.estimates.step),
                    "answers": brief(answers[name]),
                }
                for name, each in findings.items()
            },
            "seconds": time.monotonic() - begun,
        }
    )
    (place.WORK / "results" / RESULT).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


def _marker_cost(rates: dict[str, dict[str, float]]) -> dict[str, float]:
    """Percent of throughput that markers take, by batch, from equal arms with and without them."""
    marked, unmarked = rates[STABLE.name], rates[UNMARKED.name]
    return {batch: 100 * (unmarked[batch] / marked[batch] - 1) for batch in marked}


def _record(server: Any) -> dict[str, Any]:
    from moe_serve.telemetry.record import read_records

    (found,) = read_records(server.records)
    return engines.proof(found)


def _device() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "architecture": getattr(properties, "gcnArchName", "")
        or f"sm_{properties.major}{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
    }


_SECRET = (
    (re.compile(r"https?://[^\s\"']+"), "<url>"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b"), "<address>"),
    (re.compile(r"(?<![\w.])/(?:[\w.@+-]+/)+[\w.@+-]*"), "<path>"),
)


def redacted(found: Any) -> Any:
    """The same document without addresses, paths and this machine's name in any text."""
    if isinstance(found, dict):
        return {str(key): redacted(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [redacted(value) for value in found]
    if not isinstance(found, str):
        return found
    for pattern, instead in _SECRET:
        found = pattern.sub(instead, found)
    name = os.uname().nodename
    return found.replace(name, "<host>") if name else found
