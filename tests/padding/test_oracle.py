"""The contract against an oracle that enumerates, over random layers, releases and pads.

Both directions: what the contract lets pass loses nothing, and what it holds back would lose
something. The oracle is itself tested: contracts that are wrong on purpose do not get past it.
"""

import dataclasses
import os
import random
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import pytest

from moe_serve.padding import aiter_eras, contract, kernels
from moe_serve.padding.aiter_eras import aiter_build
from moe_serve.padding.contract import Call, PaddingPolicy, Report, assess
from moe_serve.padding.kernels import Kernel, KernelPath, Skips
from moe_serve.padding.shapes import Activation, Layout, Pads, Quant, Shard
from moe_serve.padding.violations import PaddingRule
from moe_serve.padding.vllm_eras import vllm_build
from tests.padding import oracle

# make test-oracle asks for 10,000.
CASES = int(os.environ.get("MOE_SERVE_ORACLE_CASES", "200"))
VERSIONS: dict[str, oracle.Version] = {
    "0.1.12": (0, 1, 12, 0),
    "0.1.13": (0, 1, 13, 0),
    "0.1.13.post1": (0, 1, 13, 1),
    "0.1.14": (0, 1, 14, 0),
    "0.1.15": (0, 1, 15, 0),
    "0.1.15.post2": (0, 1, 15, 2),
    "0.1.15.post3": (0, 1, 15, 3),
    "0.1.16": (0, 1, 16, 0),
    "0.1.17": (0, 1, 17, 0),
    "0.1.20.post1": (0, 1, 20, 1),
    "0.1.24.post1": (0, 1, 24, 1),
}
PAD_RULES = {
    PaddingRule.LIVE_WEIGHTS_LOST, PaddingRule.UNINITIALISED_READ, PaddingRule.SEPARATED_CUT,
    PaddingRule.SPLIT_K,
    PaddingRule.SPLIT_K_UNKNOWN,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    layer: oracle.Layer
    vllm: str
    aiter: str
    ksplit: int

    def call(self) -> Call:
        layer = self.layer
        return Call(
            part=Shard(
                hidden=layer.hidden,
                intermediate=layer.width,
                padded_hidden=layer.padded_hidden,
                padded_intermediate=layer.padded_width,
                experts=layer.experts,
                top_k=layer.top_k,
                moe_tp=1,
            ),
            vllm=vllm_build(self.vllm),
            aiter=aiter_build(self.aiter),
            quant=Quant.W4A16 if layer.weights_only else Quant.W4A4,
            layout=Layout.INTERLEAVE if layer.interleaved else Layout.SEPARATED,
            activation=Activation.SWIGLUOAI if layer.swiglu else Activation.SILU,
            bias=layer.bias,
            ksplit=self.ksplit,
        )

    def launches(self) -> frozenset[oracle.Launch]:
        return oracle.launches(VERSIONS[self.aiter], self.layer, self.ksplit)

    def wrong_anyway(self) -> bool:
        told = self.vllm not in ("0.21.0", "0.22.1", "0.23.0")
        version = VERSIONS[self.aiter]
        return oracle.wrong_anyway(version, self.layer, self.ksplit, vllm_tells_the_layout=told)


def random_case(dice: random.Random) -> Case:
    weights_only = dice.random() < 0.6
    hidden, width = dice.choice([(2880, 2880 // dice.choice([1, 2, 4, 8])), (0, 0), (0, 0)])
    hidden = hidden or dice.randint(1, 4096)
    width = width or dice.randint(1, 1536)
    align = dice.choice([256, 256, 128])
    return Case(
        layer=oracle.Layer(
            hidden=hidden,
            width=width,
            padded_hidden=-(-hidden // 256) * 256,
            padded_width=-(-width // align) * align,
            experts=dice.choice([4, 8, 16, 32, 128, 256]),
            top_k=dice.choice([1, 2, 4]),
            weights_only=weights_only,
            swiglu=dice.random() < 0.6,
            interleaved=weights_only and dice.random() < 0.7,
            bias=dice.choice([True, False, None]) if weights_only else False,
        ),
        vllm=dice.choice(["0.21.0", "0.22.1", "0.24.0", "0.32.0", "0.33.0"]),
        aiter=dice.choice(list(VERSIONS)),
        ksplit=dice.choice([0, 0, 0, 0, 1, 2, 3]),
    )


def random_pads(dice: random.Random, layer: oracle.Layer) -> Pads:
    if dice.random() < 0.5:  # around the padding that there is
        hidden = layer.padded_hidden - layer.hidden + dice.randint(-130, 130)
        width = layer.padded_width - layer.width + dice.randint(-130, 130)
        return Pads(
            hidden=min(max(0, hidden), layer.padded_hidden),
            intermediate=min(max(0, width), layer.padded_width),
        )
    return Pads(
        hidden=dice.randint(0, min(512, layer.padded_hidden)),
        intermediate=dice.randint(0, min(512, layer.padded_width)),
    )


def loses(report: Report) -> bool:
    return any(violation.rule in PAD_RULES for violation in report.violations)


def oracle_loses(case: Case, pads: Pads) -> bool:
    found = (
        oracle.outcome(launch, case.layer, pads.hidden, pads.intermediate)
        for launch in case.launches()
    )
    return not all(each.right for each in found)


def disagreement(case: Case, dice: random.Random) -> str | None:
    """Where contract and oracle differ in this case; None: nowhere."""
    call = case.call()
    zero = assess(call, PaddingPolicy.ZERO)
    if zero.lossless == case.wrong_anyway():
        return f"without pads: lossless is {zero.lossless} ({zero.violations})"
    if call.layout_advice is not None:
        return None  # rows are misread, so which of them are left out says nothing
    pads = random_pads(dice, case.layer)
    report = assess(call, PaddingPolicy.RAW, sent=pads)
    if loses(report) != oracle_loses(case, pads):
        return f"pads {pads}: the contract says {loses(report)} ({report.violations})"
    if not 0 <= report.loss_fraction <= 1:
        return f"pads {pads}: a share of {report.loss_fraction}"
    return not_maximal(case, assess(call, PaddingPolicy.ALIGNED).sent)


def not_maximal(case: Case, sent: Pads) -> str | None:
    """Whether aligned pads lose something, or others would skip more and lose nothing."""
    layer, launches = case.layer, case.launches()
    if oracle_loses(case, sent):
        return f"aligned pads {sent} lose something"
    h = largest(
        case, lambda pad: Pads(hidden=pad, intermediate=0), layer.padded_hidden - layer.hidden
    )
    w = largest(
        case, lambda pad: Pads(hidden=0, intermediate=pad), layer.padded_width - layer.width
    )
    for launch in launches:
        mine = oracle.outcome(launch, layer, sent.hidden, sent.intermediate).loads
        other = oracle.outcome(launch, layer, h, w).loads
        if any(theirs < ours for theirs, ours in zip(other, mine, strict=True)):
            return f"aligned {sent}, but {h}/{w} loses nothing and skips more on {launch}"
    return None


def largest(case: Case, pads: Callable[[int], Pads], padding: int) -> int:
    """The largest pad within the padding that loses nothing, tried one by one."""
    return next(pad for pad in range(padding, -1, -1) if not oracle_loses(case, pads(pad)))


def first_disagreement(cases: int, seed: int) -> str | None:
    dice = random.Random(seed)
    for number in range(cases):
        case = random_case(dice)
        found = disagreement(case, dice)
        if found is not None:
            return f"case {number} of seed {seed}: {case}: {found}"
    return None


@pytest.mark.timeout(0)
def test_the_contract_and_the_oracle_agree() -> None:
    assert first_disagreement(CASES, seed=1) is None


@pytest.mark.parametrize("aiter", list(VERSIONS))
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_they_agree_on_gpt_oss(aiter: str, tp: int) -> None:
    width = 2880 // tp
    layer = oracle.Layer(
        hidden=2880,
        width=width,
        padded_hidden=3072,
        padded_width=-(-width // 256) * 256,
        experts=128,
        top_k=4,
    )
    for vllm in ("0.22.1", "0.33.0"):
        for ksplit in (0, 1):
            case = Case(layer=layer, vllm=vllm, aiter=aiter, ksplit=ksplit)
            assert disagreement(case, random.Random(tp)) is None


def patched_skips(change: Callable[[Kernel, Skips], Skips]) -> Callable[..., Skips]:
    real = kernels.skips

    def skips(kernel: Kernel, part: Shard, sent: Pads) -> Skips:
        return change(kernel, real(kernel, part, sent))

    return skips


def without_loss(kernel: Kernel, found: Skips) -> Skips:
    split = kernel.path is KernelPath.CKTILE and kernel.split_k > 1
    return dataclasses.replace(found, lost=kernels.Lost()) if split else found


def all_written(_: Kernel, found: Skips) -> Skips:
    return dataclasses.replace(found, uninitialised=0)


def blind_to_odd_tails(pad: int, width: int) -> int:
    return min(pad // 128 * 128, 256) if width >= 256 else 0


# Contracts that are wrong on purpose: what is patched, where, and by what.
MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "splits lose nothing": (contract, "skips", patched_skips(without_loss)),
    "stage 1 writes all that stage 2 reads": (contract, "skips", patched_skips(all_written)),
    "an odd tail heeds the pad": (kernels, "_tail_k", blind_to_odd_tails),
    "no batch is split": (aiter_eras, "_ksplits", lambda _: (1,)),
    "batches are not rounded to powers of two": (aiter_eras, "_DECODE_BATCHES", (1, 3, 5, 12)),
    "FlyDSL is never told a pad": (
        aiter_eras.AiterEra, "flydsl_honours", lambda self, bias: False,
    ),
    "FlyDSL is always told the pads": (
        aiter_eras.AiterEra, "flydsl_honours", lambda self, bias: True,
    ),
    "no AITER has the GELU fault": (
        aiter_eras.AiterEra, "splits_end_with_gelu", property(lambda self: False),
    ),
    "every AITER reads the layout from the call": (
        aiter_eras.AiterEra, "reads_gate_mode", property(lambda self: True),
    ),
    "aligned sends nothing": (contract, "aligned", lambda call: Pads(hidden=0, intermediate=0)),
    "aligned sends half": (
        contract, "aligned",
        lambda call: Pads(
            hidden=call.part.raw.hidden // 256 * 128, intermediate=call.part.raw.intermediate // 2
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_contract_that_is_wrong_on_purpose_is_caught(
    mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, instead = MUTATIONS[mutation]
    monkeypatch.setattr(where, name, instead)

    assert first_disagreement(400, seed=2) is not None


def test_the_oracle_imports_nothing_of_the_contract() -> None:
    assert "moe_serve" not in FilePath(oracle.__file__).read_text("utf-8")
