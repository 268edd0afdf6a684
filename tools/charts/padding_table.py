"""`files/padding.json`: what each policy loses, as the contract says, for the chart to look up.

A template cannot ask the contract, so its answers for GPT-OSS-120B travel with the chart: by vLLM's
minor release, with the AITER that this release's image pins and with one that is not known, by
parallel sizes and by policy. The worker asks the contract again, at its real sizes and versions.
"""

import json
import math
from collections.abc import Iterator, Mapping

from images import pins
from moe_serve.padding.aiter_eras import aiter_era
from moe_serve.padding.contract import Call, Policy, Report, assess
from moe_serve.padding.models import BUILT_IN
from moe_serve.padding.shapes import Parallelism, Quant, shard
from moe_serve.padding.violations import BUDGETABLE
from moe_serve.padding.vllm_eras import vllm_era

PINS: Mapping[str, str] = pins.load(pins.PINS.read_text("utf-8"))["aiter_of_vllm"]
_SIZES = (1, 2, 4, 8)


def table() -> str:
    """The file's text."""
    found = {
        minor: {
            "aiter": aiter,
            "pinned": _by_parallelism(minor, aiter),
            "unknown": _by_parallelism(minor, None),
        }
        for minor, aiter in PINS.items()
    }
    return json.dumps({"newest": list(PINS)[-1], "vllm": found}, indent=1, sort_keys=True) + "\n"


def _by_parallelism(minor: str, aiter: str | None) -> dict[str, Mapping[str, object]]:
    return {
        _key(parallel): {
            policy.value: _entry(_report(minor, aiter, parallel, policy)) for policy in Policy
        }
        for parallel in _deployments()
    }


def _deployments() -> Iterator[Parallelism]:
    for ep in (False, True):
        for tp in _SIZES:
            yield from (Parallelism(tp=tp, dp=dp, ep=ep) for dp in _SIZES if tp * dp <= max(_SIZES))


def _key(parallel: Parallelism) -> str:
    return f"tp{parallel.tp} dp{parallel.dp}{' ep' if parallel.ep else ''}"


def _report(minor: str, aiter: str | None, parallel: Parallelism, policy: Policy) -> Report:
    dims, era = BUILT_IN["gpt-oss-120b"], vllm_era(f"{minor}.0")
    part = shard(dims, parallel, align=era.alignment(Quant.W4A16, dims.activation))
    return assess(Call(part=part, vllm=era, aiter=aiter_era(aiter) if aiter else None), policy)


def _entry(report: Report) -> object:
    """The lost share, or the first rule that no budget can pay for."""
    broken = [found.rule.value for found in report.violations if found.rule not in BUDGETABLE]
    # Rounded up: what passes here must pass at the worker too.
    return broken[0] if broken else math.ceil(report.loss_fraction * 1e4) / 1e4
