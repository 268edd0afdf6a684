"""A run's result file: an InferenceX aggregate with the keys that pairing needs."""

from dataclasses import dataclass

import numpy as np

from moe_serve.benchmark.load.client import RequestTiming
from moe_serve.benchmark.load.plan import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts about a server from the command line; `gpus` is its tensor parallel size."""

    model: str
    gpus: int
    hardware: str
    precision: str
    image: str


def aggregate(
    measured: RequestTiming, turn: Turn, facts: RunFacts, planned_pairs: int
) -> dict[str, object]:
    """The JSON object of one run; times in seconds, rates in tokens per second and GPU.

    `*_intvty` are tokens per second of one user. A statistic of no values is left out. `failed`,
    `client_busy` (processor seconds per second) and `started` are for the judge's checks.
    """
    given = sum(one.input_tokens for one in measured.answered)
    made = sum(one.output_tokens for one in measured.answered)
    per_gpu = measured.seconds * facts.gpus
    return {
        "hw": facts.hardware,
        "conc": turn.cell.concurrency,
        "image": facts.image,
        "model": facts.model,
        "framework": "vllm",
        "precision": facts.precision,
        "spec_decoding": "none",
        "disagg": False,
        "isl": turn.cell.shape.input_tokens,
        "osl": turn.cell.shape.output_tokens,
        "is_multinode": False,
        "tp": facts.gpus,
        "pp": 1,
        "dcp_size": 1,
        "pcp_size": 1,
        "ep": 1,
        "dp_attention": "false",
        "tput_per_gpu": (given + made) / per_gpu,
        "output_tput_per_gpu": made / per_gpu,
        "input_tput_per_gpu": given / per_gpu,
        **_latencies(measured),
        "arm": turn.arm.value,
        "pair": turn.pair,
        "planned_pairs": planned_pairs,
        "started": measured.started,
        "duration": measured.seconds,
        "completed": len(measured.answered),
        "failed": len(measured.refused),
        "total_input_tokens": given,
        "total_output_tokens": made,
        "client_busy": measured.client_seconds / measured.seconds,
    }


def _latencies(measured: RequestTiming) -> dict[str, float]:
    answered = measured.answered
    tpot = [
        (one.latency - one.first) / (one.output_tokens - 1)
        for one in answered
        if one.output_tokens > 1
    ]
    found = {
        **_summary("ttft", [one.first for one in answered]),
        **_summary("tpot", tpot),
        **_summary("itl", [gap for one in answered for gap in one.gaps]),
        **_summary("e2el", [one.latency for one in answered]),
    }
    speeds = {
        key.replace("tpot", "intvty"): 1 / value
        for key, value in found.items()
        if "tpot" in key and value > 0
    }
    return found | speeds


def _summary(name: str, values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    array = np.asarray(values)
    return {
        f"mean_{name}": float(array.mean()),
        f"median_{name}": float(np.median(array)),
        f"std_{name}": float(array.std()),
        f"p99_{name}": float(np.percentile(array, 99)),
    }
