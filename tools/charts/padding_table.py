"""`files/padding.json`: what each policy loses, as the contract says, for the chart to look up.

A template cannot ask the contract, so its answers for GPT-OSS-120B travel with the chart: by the
releases of vLLM and AITER at which the answers change, by parallel sizes and by policy, once as
AITER splits by itself and once with `AITER_KSPLIT=1`. The template finds a version's place among
these releases by the rules of `moe_serve.padding.builds`. The worker asks the contract again, at
its real sizes and versions.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from moe_serve.padding import aiter_eras, vllm_eras
from moe_serve.padding.aiter_eras import AiterEra, Experts, aiter_build, reachable
from moe_serve.padding.builds import ReleaseHistory
from moe_serve.padding.contract import PaddingPolicy, Report
from moe_serve.padding.deployment import Deployment, judge
from moe_serve.padding.kernels import Kernel
from moe_serve.padding.models import BUILT_IN, built_in
from moe_serve.padding.shapes import Layout, Pads, Parallelism, Quant, shard
from moe_serve.padding.versions import Version
from moe_serve.padding.violations import BUDGETABLE
from moe_serve.padding.vllm_eras import VllmEra, vllm_build

_SIZES = (1, 2, 4, 8)
_DIMS = BUILT_IN["gpt-oss-120b"]
_ALIGN = Pads(hidden=256, intermediate=256)
_KSPLITS = {"default": 0, "ksplit1": 1}


def table() -> str:
    """The file's text: `vllm` and `aiter` are releases by their keys, `answers` theirs."""
    vllms = _first_of_each(vllm_eras.HISTORY, _vllm_signature)
    aiters = _first_of_each(aiter_eras.HISTORY, _aiter_signature)
    answers = {v: {a: _both(v, a) for a in aiters.values()} for v in vllms.values()}
    content = {"vllm": vllms, "aiter": aiters, "answers": answers}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _first_of_each(
    history: ReleaseHistory[Any], signature: Callable[[Any], object]
) -> dict[str, str]:
    """The releases at which the answers may change, by a key that sorts as releases do."""
    kept: dict[str, str] = {}
    last: object = None
    for era in history.every:
        found = signature(era)
        if found != last:
            kept[key(era.version)] = era.text
        last = found
    return kept


def _vllm_signature(era: VllmEra) -> object:
    """All that decides the answers for GPT-OSS under one vLLM."""
    parts = [shard(_DIMS, parallel, align=_ALIGN) for parallel in _deployments()]
    sent = [era.sent(part, Quant.W4A16, _DIMS.activation) for part in parts]
    assert era.alignment(Quant.W4A16, _DIMS.activation) == _ALIGN
    return era.sends_gate_mode, sent


def _aiter_signature(era: AiterEra) -> object:
    """The same of one AITER: its kernels, and how it reads the rows' order."""
    parts = [shard(_DIMS, parallel, align=_ALIGN) for parallel in _deployments()]
    experts = [
        Experts(
            part=part,
            quant=Quant.W4A16,
            layout=Layout.INTERLEAVE,
            activation=_DIMS.activation,
            bias=True,
            ksplit=ksplit,
        )
        for part in parts
        for ksplit in _KSPLITS.values()
    ]
    return era.reads_gate_mode, [set(map(_skipping, reachable(era, each))) for each in experts]


def _skipping(kernel: Kernel) -> Kernel:
    # Only w4a4 has widths that AITER would stop at.
    return replace(kernel, stops_misaligned=False)


def key(version: Version) -> str:
    """Four numbers of equal width, as the template makes them: three, and 1 + that of a post."""
    post = 0 if version.post is None else version.post + 1
    return ".".join(f"{number:05d}" for number in (*map(version.number, range(3)), post))


def _both(vllm: str, aiter: str) -> dict[str, object]:
    return {name: _by_parallelism(vllm, aiter, ksplit) for name, ksplit in _KSPLITS.items()}


def _by_parallelism(vllm: str, aiter: str, ksplit: int) -> dict[str, Mapping[str, object]]:
    return {
        _spread(parallel): {
            policy.value: _entry(_report(vllm, aiter, parallel, policy, ksplit))
            for policy in PaddingPolicy
        }
        for parallel in _deployments()
    }


def _deployments() -> Iterator[Parallelism]:
    for ep in (False, True):
        for tp in _SIZES:
            yield from (Parallelism(tp=tp, dp=dp, ep=ep) for dp in _SIZES if tp * dp <= max(_SIZES))


def _spread(parallel: Parallelism) -> str:
    return f"tp{parallel.tp} dp{parallel.dp}{' ep' if parallel.ep else ''}"


def _report(
    vllm: str, aiter: str, parallel: Parallelism, policy: PaddingPolicy, ksplit: int
) -> Report:
    model = built_in("gpt-oss-120b")
    assert model is not None
    deployment = Deployment(
        model=model,
        parallel=parallel,
        vllm=vllm_build(vllm),
        aiter=aiter_build(aiter),
        ksplit=ksplit,
    )
    return judge(deployment, policy).worst


def _entry(report: Report) -> object:
    """The lost share, or the first rule that no budget can pay for."""
    broken = [found.rule.value for found in report.violations if found.rule not in BUDGETABLE]
    # Rounded up: what passes here must pass at the worker too.
    return broken[0] if broken else math.ceil(report.loss_fraction * 1e4) / 1e4
