"""The padding contract: which pads to send, and what every reachable kernel makes of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from moe_serve.errors import UsageError
from moe_serve.padding import violations
from moe_serve.padding.aiter_eras import AiterEra, Experts, reachable
from moe_serve.padding.builds import Build
from moe_serve.padding.kernels import Kernel, KernelPath, KernelPhase, Lost, Skips, skips
from moe_serve.padding.shapes import Activation, Layout, Pads, Quant, Shard
from moe_serve.padding.site_tables import OWN_TABLES, SitePaths
from moe_serve.padding.violations import BUDGETABLE, PaddingRule, Violation
from moe_serve.padding.vllm_eras import VllmEra, rounded

_ZERO = Pads(hidden=0, intermediate=0)


class PaddingPolicy(StrEnum):
    """Which pads to send."""

    UPSTREAM = "upstream"
    ZERO = "zero"
    RAW = "raw"
    ROUNDED = "rounded"
    ALIGNED = "aligned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One rank's fused-MoE call: its shape, and the software that serves it.

    `vllm` and `aiter` are judged as every release that they may be. `bias` None means that it is
    not known whether there are biases, so both are judged. `override` is vLLM's
    `moe_config.intermediate_pad`, `ksplit` the value of `AITER_KSPLIT` (0: AITER's own choice).
    `site` is what this site's own AITER tables add to the paths.
    """

    part: Shard
    vllm: Build[VllmEra]
    aiter: Build[AiterEra]
    quant: Quant = Quant.W4A16
    layout: Layout = Layout.INTERLEAVE
    activation: Activation = Activation.SWIGLUOAI
    bias: bool | None = True
    override: int | None = None
    zero_filled: bool = True
    ksplit: int = 0
    site: SitePaths = OWN_TABLES

    def __post_init__(self) -> None:
        """Refuse what the contract does not cover."""
        if self.activation is Activation.SITU:
            raise UsageError("activation situ has kernels of its own, which are not known here")

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every kernel variant that the call can take."""
        experts = Experts(
            part=self.part,
            quant=self.quant,
            layout=self.layout,
            activation=self.activation,
            bias=self.bias,
            ksplit=self.ksplit,
        )
        found = (
            kernel
            for era in self.aiter.eras
            for kernel in (*reachable(era, experts), *self.site.kernels(era, experts))
        )
        return tuple(dict.fromkeys(found))

    @property
    def layout_advice(self) -> str | None:
        """What to do where w13 is read in another order than it is stored in; None: it is not."""
        if self.quant is Quant.W4A8:
            return None
        told = all(era.sends_gate_mode for era in self.vllm.eras)
        wrong = [
            era
            for era in self.aiter.eras
            if not era.layout_matches(self.layout, self.activation, told=told)
        ]
        if not wrong:
            return None
        if not all(era.reads_gate_mode for era in wrong):
            return "use AITER 0.1.14 or newer with vLLM 0.24 or newer"
        before = ", or AITER 0.1.13.post1" if self.activation is Activation.SWIGLUOAI else ""
        return f"use vLLM 0.24 or newer{before}"

    @property
    def unverified(self) -> tuple[str, ...]:
        """Why the answer is not from this very software's source, a sentence each."""
        reasons = (self.vllm.unverified, self.aiter.unverified, self.site.unverified(self.part))
        return tuple(reason for reason in reasons if reason is not None)

    @property
    def verified(self) -> bool:
        """Whether this very software's own code was read."""
        return not self.unverified


@dataclass(frozen=True, slots=True, kw_only=True)
class PathReport:
    """What one kernel family does in one phase.

    `skips` and each violation come from the worst of its `variants`, `bytes_ratio` from the
    plainest. `assumption`: what of the kernel the source does not show; None: nothing.
    """

    path: KernelPath
    phase: KernelPhase
    variants: int
    skips: Skips
    bytes_ratio: float
    violations: tuple[Violation, ...]
    assumption: str | None = None

    @property
    def safe(self) -> bool:
        """Whether nothing is wrong on this path."""
        return not self.violations


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The contract's answer for one call and one pair of pads."""

    call: Call
    policy: PaddingPolicy
    sent: Pads
    paths: tuple[PathReport, ...]
    violations: tuple[Violation, ...]
    max_loss: float

    @property
    def loss_fraction(self) -> float:
        """The largest share of live neurons or hidden columns that any path loses."""
        part, lost = self.call.part, self.lost
        return max(
            max(lost.stage1_neurons, lost.stage2_k) / part.intermediate,
            max(lost.stage1_k, lost.stage2_n) / part.hidden,
        )

    @property
    def held_back(self) -> tuple[Violation, ...]:
        """Why `aligned` sends less than the padding there is: the rules that raw pads break."""
        raw = self.call.part.raw
        if self.policy is not PaddingPolicy.ALIGNED or self.sent == raw:
            return ()
        broken = {v.rule: v for v in assess(self.call, PaddingPolicy.RAW, sent=raw).violations}
        given = {violation.rule for violation in self.violations}
        return tuple(violation for rule, violation in broken.items() if rule not in given)

    @property
    def lossless(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.violations

    @property
    def safe(self) -> bool:
        """Whether nothing is wrong, or all that is wrong is a loss within the budget."""
        if self.lossless:
            return True
        known = all(violation.rule in BUDGETABLE for violation in self.violations)
        return known and self.max_loss > 0 and self.loss_fraction <= self.max_loss

    @property
    def lost(self) -> Lost:
        """The most that any path loses, count by count."""
        each = [path.skips.lost for path in self.paths]
        return Lost(
            stage1_neurons=max(lost.stage1_neurons for lost in each),
            stage1_k=max(lost.stage1_k for lost in each),
            stage2_n=max(lost.stage2_n for lost in each),
            stage2_k=max(lost.stage2_k for lost in each),
        )


def choose(call: Call, policy: PaddingPolicy) -> Pads:
    """The pads that `policy` sends for `call`."""
    raw = call.part.raw
    if call.quant is Quant.W4A8:
        return raw  # vLLM passes exact sizes to its Triton kernel, whatever the policy
    match policy:
        case PaddingPolicy.UPSTREAM:
            return call.vllm.eras[-1].sent(call.part, call.quant, call.activation, call.override)
        case PaddingPolicy.ZERO:
            return _ZERO
        case PaddingPolicy.RAW:
            return raw
        case PaddingPolicy.ROUNDED:
            return rounded(raw, doubled=True)
        case PaddingPolicy.ALIGNED:
            return aligned(call)
        case _:
            assert_never(policy)


def aligned(call: Call) -> Pads:
    """The largest pads within the padding that break no rule on any reachable path.

    The hidden and the intermediate pad act on different rules, so each is maximal by itself;
    every kernel's skip grows with the pad, so the largest safe number skips most.
    """
    raw, kernels = call.part.raw, call.kernels
    hidden = tuple(Pads(hidden=pad, intermediate=0) for pad in range(raw.hidden, 0, -1))
    width = tuple(Pads(hidden=0, intermediate=pad) for pad in range(raw.intermediate, 0, -1))
    return Pads(
        hidden=_largest(call, kernels, hidden).hidden,
        intermediate=_largest(call, kernels, width).intermediate,
    )


def _largest(call: Call, kernels: tuple[Kernel, ...], candidates: tuple[Pads, ...]) -> Pads:
    # What is wrong without any pad (a layout, a shape) is wrong with one, and rules none out.
    given = {violation.rule for violation in _violations(call, kernels, _ZERO)}
    for pads in candidates:
        if all(violation.rule in given for violation in _violations(call, kernels, pads)):
            return pads if pads == candidates[0] else _roundest(call.part, kernels, pads)
    return _ZERO


def _roundest(part: Shard, kernels: tuple[Kernel, ...], pads: Pads) -> Pads:
    """The same skips on every kernel, told by a rounder number."""
    wanted = [skips(kernel, part, pads) for kernel in kernels]
    for step in (128, 64, 32, 16):
        rounder = Pads(
            hidden=pads.hidden // step * step, intermediate=pads.intermediate // step * step
        )
        if [skips(kernel, part, rounder) for kernel in kernels] == wanted:
            return rounder
    return pads


def _violations(call: Call, kernels: tuple[Kernel, ...], sent: Pads) -> Iterator[Violation]:
    for kernel in kernels:
        found = skips(kernel, call.part, sent)
        yield from violations.of_kernel(kernel, call.part, found)
    yield from _of_call(call, sent)


def _of_call(call: Call, sent: Pads) -> Iterator[Violation]:
    return violations.of_call(
        call.part,
        sent,
        layout_advice=call.layout_advice,
        zero_filled=call.zero_filled,
        pads_used=call.quant is not Quant.W4A8,
    )


def assess(
    call: Call, policy: PaddingPolicy, *, max_loss: float = 0.0, sent: Pads | None = None
) -> Report:
    """Judge `policy` for `call`; `sent` replaces the pads that the policy would choose.

    Raises:
        UsageError: the budget is not a fraction from 0 to 1.
    """
    if not 0 <= max_loss <= 1:
        raise UsageError(f"the loss budget is {max_loss}; give a fraction from 0 to 1")
    pads = choose(call, policy) if sent is None else sent
    families: dict[tuple[KernelPath, KernelPhase], list[Kernel]] = {}
    for kernel in call.kernels:
        families.setdefault((kernel.path, kernel.phase), []).append(kernel)
    paths = tuple(_path(call, pads, kernels) for kernels in families.values())
    found = [violation for path in paths for violation in path.violations]
    return Report(
        call=call,
        policy=policy,
        sent=pads,
        paths=paths,
        violations=tuple(dict.fromkeys([*found, *_of_call(call, pads)])),
        max_loss=max_loss,
    )


def _path(call: Call, sent: Pads, kernels: list[Kernel]) -> PathReport:
    part = call.part
    each = [(kernel, skips(kernel, part, sent)) for kernel in kernels]
    worst_first = sorted(each, key=lambda pair: _severity(pair[1]), reverse=True)
    found: dict[PaddingRule, Violation] = {}
    for kernel, skipped in worst_first:
        for violation in violations.of_kernel(kernel, part, skipped):
            found.setdefault(violation.rule, violation)
    return PathReport(
        path=kernels[0].path,
        phase=kernels[0].phase,
        variants=len(kernels),
        skips=worst_first[0][1],
        bytes_ratio=each[0][1].elements(part) / part.ideal_elements,
        violations=tuple(found.values()),
        assumption=kernels[0].assumption,
    )


def _severity(found: Skips) -> tuple[int, int, int]:
    lost: Lost = found.lost
    return (
        lost.stage1_neurons + lost.stage2_k,
        lost.stage1_k + lost.stage2_n,
        found.uninitialised,
    )
