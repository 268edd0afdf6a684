"""What can be wrong with pads: every rule of the contract by name, with what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from moe_serve.padding.kernels import TILE_K, Kernel, KernelPath, Skips
from moe_serve.padding.shapes import Layout, Pads, Shard


class PaddingRule(StrEnum):
    """The rules; a value is the `id` of a violation in JSON, logs and metrics."""

    LIVE_WEIGHTS_LOST = "live-weights-lost"
    UNINITIALISED_READ = "uninitialised-read"
    SCALE_GROUPS = "scale-groups-misaligned"
    SEPARATED_CUT = "separated-rows-cut"
    SPLIT_K = "split-k-hidden-pad"
    SPLIT_K_UNKNOWN = "split-k-unknown-tail"
    SPLIT_K_GELU = "split-k-gelu"
    AITER_STOPS = "aiter-stops"
    SHAPE = "shape-misaligned"
    PAD_NOT_ZERO = "pad-not-zero"
    LAYOUT = "layout-mismatch"
    PAD_EXCEEDS_RAW = "pad-exceeds-raw"
    FEWER_BYTES = "fewer-bytes-than-live"


# A loss of known size, which a declared budget may accept; all else is wrong at any budget.
BUDGETABLE = frozenset(
    {
        PaddingRule.LIVE_WEIGHTS_LOST,
        PaddingRule.SEPARATED_CUT,
        PaddingRule.SPLIT_K,
        PaddingRule.PAD_EXCEEDS_RAW,
        PaddingRule.FEWER_BYTES,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken rule: what breaks, and what to do."""

    rule: PaddingRule
    message: str

    def to_json(self) -> dict[str, str]:
        """The form of `padding explain --output json`."""
        return {"id": self.rule.value, "message": self.message}


def of_kernel(kernel: Kernel, part: Shard, found: Skips) -> Iterator[Violation]:
    """What one kernel variant breaks when it skips what it `found` in the pads it was told."""
    if kernel.gelu:
        yield Violation(
            rule=PaddingRule.SPLIT_K_GELU,
            message=f"{kernel}: AITER 0.1.12 to 0.1.13 end a split SwiGLU with GELU, wrong at "
            f"any pads (aiter#2960); use AITER 0.1.13.post1, or set AITER_KSPLIT=1",
        )
    yield from _losses(kernel, part, found)
    if found.uninitialised:
        yield Violation(
            rule=PaddingRule.UNINITIALISED_READ,
            message=f"{kernel}: stage 2 reads {found.uninitialised} neurons that stage 1 never "
            f"wrote (aiter#3538); send a multiple of 128 as the intermediate pad",
        )
    if kernel.cktile_stage2:
        yield from _cktile_shape(kernel, part)
    if found.lost.stage1_k and kernel.split_k > 1:
        yield Violation(
            rule=PaddingRule.SPLIT_K,
            message=f"{kernel}: each split drops the hidden pad from its own tail, "
            f"{_share(found.lost.stage1_k, part.hidden, 'hidden columns')} (read in the "
            f"kernel, not yet run); send a hidden pad below 128, or set AITER_KSPLIT=1",
        )
    if found.unknown_tail:
        yield Violation(
            rule=PaddingRule.SPLIT_K_UNKNOWN,
            message=f"{kernel}: {part.padded_hidden} hidden columns do not divide into "
            f"{kernel.split_k} splits of whole tiles of {TILE_K}, so it is not known what a hidden "
            f"pad drops; send one below 128",
        )
    if kernel.split_k == 1 and found.elements(part) < part.ideal_elements:
        share = found.elements(part) / part.ideal_elements
        yield Violation(
            rule=PaddingRule.FEWER_BYTES,
            message=f"{kernel}: fetches {share:.3f} of the live weights' bytes, so live rows are "
            f"skipped; send smaller pads",
        )


def _losses(kernel: Kernel, part: Shard, found: Skips) -> Iterator[Violation]:
    lost = found.lost
    cut = kernel.layout is Layout.SEPARATED and kernel.path is KernelPath.CKTILE
    if cut and lost.stage1_neurons:
        yield Violation(
            rule=PaddingRule.SEPARATED_CUT,
            message=f"{kernel}: {_share(lost.stage1_neurons, part.intermediate, 'up rows')} are "
            f"cut while their gate rows stay (aiter#3862); send an intermediate pad below 64",
        )
    counts = [
        (0 if cut else lost.stage1_neurons, part.intermediate, "neurons"),
        (lost.stage1_k if kernel.split_k == 1 else 0, part.hidden, "hidden columns of w13"),
        (lost.stage2_n, part.hidden, "hidden rows of w2"),
        (lost.stage2_k, part.intermediate, "neuron columns of w2"),
    ]
    named = [_share(count, live, what) for count, live, what in counts if count]
    if named:
        yield Violation(
            rule=PaddingRule.LIVE_WEIGHTS_LOST,
            message=f"{kernel}: {' and '.join(named)} are read as zero; send smaller pads, or "
            f"the policy aligned",
        )


def _share(count: int, live: int, what: str) -> str:
    return f"{count} of {live} live {what} ({count / live:.1%})"


def _cktile_shape(kernel: Kernel, part: Shard) -> Iterator[Violation]:
    odd_width = part.padded_intermediate % TILE_K != 0
    if odd_width and kernel.stops_misaligned:
        yield Violation(
            rule=PaddingRule.AITER_STOPS,
            message=f"{kernel}: {part.padded_intermediate} padded neurons are not a multiple of "
            f"{TILE_K}, so this AITER stops with an error (aiter#5232); use a tensor parallel size "
            f"or a vLLM that pads to {TILE_K}",
        )
    elif odd_width:
        yield Violation(
            rule=PaddingRule.SCALE_GROUPS,
            message=f"{kernel}: {part.padded_intermediate} padded neurons are not a multiple of "
            f"{TILE_K}, so stage 2 reads wrong scales (aiter#5233); use a tensor parallel size or "
            f"a vLLM that pads to {TILE_K}",
        )
    if part.padded_hidden % TILE_K:
        yield Violation(
            rule=PaddingRule.SHAPE,
            message=f"{kernel}: padded hidden size {part.padded_hidden} is not a multiple of "
            f"{TILE_K}; use a vLLM that pads to {TILE_K}",
        )


def of_call(
    part: Shard, sent: Pads, *, layout_advice: str | None, zero_filled: bool, pads_used: bool
) -> Iterator[Violation]:
    """What is wrong whichever kernel runs; `layout_advice`: what to do about a wrong layout."""
    if layout_advice is not None:
        yield Violation(
            rule=PaddingRule.LAYOUT,
            message="AITER reads w13 in another row order than this vLLM stores it, wrong whatever "
            f"the pads; {layout_advice}",
        )
    if not zero_filled and part.raw != Pads(hidden=0, intermediate=0):
        yield Violation(
            rule=PaddingRule.PAD_NOT_ZERO,
            message="the padding of the weights does not hold zeros, and no kernel skips all of "
            "it; zero-fill it at load",
        )
    if pads_used and sent.intermediate > part.raw.intermediate:
        yield Violation(
            rule=PaddingRule.PAD_EXCEEDS_RAW,
            message=f"intermediate pad {sent.intermediate} is more than the "
            f"{part.raw.intermediate} neurons of padding there are; send at most that",
        )
