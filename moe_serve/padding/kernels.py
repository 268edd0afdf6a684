"""What each AITER kernel path does with the pads that it is told.

Sources: aiter `fused_moe.py` (`get_2stage_cfgs`, v0.1.12 to v0.1.20.post1, and main of September
2026), composable_kernel `moe_flatmm_kernel.hpp`, aiter `mixed_moe_gemm_2stage.py` (FlyDSL). Read,
not run: no gfx950 was at hand. Where reading could not settle a point, the answer here is the one
that loses more.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from moe_serve.padding.shapes import Layout, Pads, Shard, round_up

TILE_K = 256
FLYDSL_TILES_N = (64, 128, 256)
_K_STEP = 128


class KernelPath(StrEnum):
    """The kernel families behind one `aiter.fused_moe` call."""

    CKTILE = "cktile"
    FLYDSL = "flydsl"
    MIXED = "flydsl+cktile"
    CK2STAGES = "ck2stages"
    ASM = "asm"
    OPUS = "opus"
    TRITON = "triton"


class KernelPhase(StrEnum):
    """Which batches take a path: AITER switches by the number of tokens."""

    DECODE = "decode"
    PREFILL = "prefill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel variant that a call may take.

    `honours_pads` is false where AITER's dispatcher withholds the pads from FlyDSL;
    `covers_tail` is FlyDSL's `tile2_pad` (aiter#3401): stage 1 writes what stage 2 reads.
    `gelu`: a split stage 1 ends with GELU though the experts have SwiGLU (aiter#2960).
    `stops_misaligned`: AITER raises an error before CK-tile's stage 2 would read wrong scales
    (aiter#5232).
    """

    path: KernelPath
    phase: KernelPhase
    layout: Layout = Layout.INTERLEAVE
    split_k: int = 1
    tile_n: int = 256
    honours_pads: bool = True
    covers_tail: bool = False
    gelu: bool = False
    stops_misaligned: bool = False

    @property
    def cktile_stage2(self) -> bool:
        """Whether CK-tile runs the second stage."""
        return self.path in (KernelPath.CKTILE, KernelPath.MIXED)

    @property
    def assumption(self) -> str | None:
        """What of this variant the source that could be read does not show; None: nothing."""
        if self.path is KernelPath.CKTILE and self.phase is KernelPhase.PREFILL:
            return (
                "that its a8w4 kernel skips columns as the a16w4 one does is assumed: if not, it "
                "fetches more bytes than reported, and loses nothing more"
            )
        if self.path is KernelPath.OPUS:
            return "its specialisation for these pads is assumed to be compiled"
        return None

    def __str__(self) -> str:
        """Name of the variant for messages."""
        extra = ""
        if self.path is KernelPath.CKTILE and self.split_k > 1:
            extra = f", split-K {self.split_k}"
        elif self.path is KernelPath.FLYDSL and self.honours_pads:
            extra = f", tile {self.tile_n}"
        return f"{self.path} ({self.phase}{extra})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Live weights that a call does not use, in neurons and in hidden columns or rows."""

    stage1_neurons: int = 0
    stage1_k: int = 0
    stage2_n: int = 0
    stage2_k: int = 0

    @property
    def anything(self) -> bool:
        """Whether any live weight is lost."""
        return any((self.stage1_neurons, self.stage1_k, self.stage2_n, self.stage2_k))

    def to_json(self) -> dict[str, int]:
        """The form of `padding explain --output json`."""
        return {
            "stage1_neurons": self.stage1_neurons,
            "stage1_k": self.stage1_k,
            "stage2_n": self.stage2_n,
            "stage2_k": self.stage2_k,
        }


_NO_PADS = Pads(hidden=0, intermediate=0)
_NO_LOSS = Lost()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skips:
    """What a kernel leaves out, and what of that was live.

    `stage1_rows` counts rows of w13 (two a neuron), `stage1_k` its hidden columns, `stage2_n`
    w2's hidden rows, `stage2_k` its neuron columns. `effective` is the pad that stage 1 really
    skipped; `uninitialised` counts neurons that stage 2 reads though nothing wrote them.
    `unknown_tail`: the splits of stage 1 end inside a K tile, and what is skipped there is unknown.
    """

    stage1_rows: int = 0
    stage1_k: int = 0
    stage2_n: int = 0
    stage2_k: int = 0
    effective: Pads = _NO_PADS
    lost: Lost = _NO_LOSS
    uninitialised: int = 0
    unknown_tail: bool = False

    def elements(self, part: Shard) -> int:
        """Weight elements of one expert that are fetched."""
        width, hidden = part.padded_intermediate, part.padded_hidden
        stage1 = (2 * width - self.stage1_rows) * (hidden - self.stage1_k)
        return stage1 + (hidden - self.stage2_n) * (width - self.stage2_k)


def skips(kernel: Kernel, part: Shard, sent: Pads) -> Skips:
    """What `kernel` does when it is told to skip `sent` of the padded `part`."""
    match kernel.path:
        case KernelPath.CKTILE:
            return _cktile(kernel, part, sent)
        case KernelPath.FLYDSL:
            return _flydsl(kernel, part, sent)
        case KernelPath.MIXED:
            return _mixed(kernel, part, sent)
        case KernelPath.OPUS:
            return _opus(part, sent)
        case KernelPath.TRITON:
            return _exact(part)
        case KernelPath.CK2STAGES | KernelPath.ASM:
            # aiter#5413: the pads are ignored; correct as long as the padding holds zeros.
            return Skips()
        case _:
            assert_never(kernel.path)


def _cktile(kernel: Kernel, part: Shard, sent: Pads) -> Skips:
    # The last rows in stored order are out of the buffer's range and read as zero: interleaved,
    # those are the last neurons, gate and up; separated, they are rows of up, then of gate.
    rows = min(sent.intermediate // 64 * 64 * 2, 2 * part.padded_intermediate)
    neurons = rows // 2 if kernel.layout is Layout.INTERLEAVE else rows
    unknown = _splits_a_tile(kernel, part)
    k1 = 0 if unknown else _tail_k(sent.hidden, part.padded_hidden // kernel.split_k)
    return _with_loss(
        part,
        replace(
            _cktile_stage2(part, sent),
            stage1_rows=rows,
            stage1_k=k1 * kernel.split_k,
            effective=Pads(hidden=k1, intermediate=min(neurons, part.padded_intermediate)),
            unknown_tail=unknown and sent.hidden >= _K_STEP,
        ),
        # Every split drops its own tail, live or not: no guard was found in the kernel.
        k1_ends=tuple(
            part.padded_hidden * (split + 1) // kernel.split_k for split in range(kernel.split_k)
        ),
    )


def _cktile_stage2(part: Shard, sent: Pads) -> Skips:
    return Skips(
        stage2_n=min(sent.hidden // 64 * 64, part.padded_hidden),
        stage2_k=_tail_k(sent.intermediate, part.padded_intermediate),
    )


def _splits_a_tile(kernel: Kernel, part: Shard) -> bool:
    return kernel.split_k > 1 and part.padded_hidden % (TILE_K * kernel.split_k) != 0


def _tail_k(pad: int, width: int) -> int:
    """Columns that CK-tile drops from the last K tile of a range that is `width` columns wide.

    Only the pipeline's even tail knows the pad, and it never drops more than one tile.
    """
    tiles = width // TILE_K
    if tiles == 0 or tiles % 2:
        return 0
    return min(pad // _K_STEP * _K_STEP, TILE_K)


def _mixed(kernel: Kernel, part: Shard, sent: Pads) -> Skips:
    """FlyDSL's first stage before CK-tile's second: what each of them does by itself."""
    first, second = _flydsl(kernel, part, sent), _cktile_stage2(part, sent)
    written = part.padded_intermediate - first.stage1_rows // 2
    return _with_loss(
        part,
        replace(
            first,
            stage2_n=second.stage2_n,
            stage2_k=second.stage2_k,
            uninitialised=max(0, part.padded_intermediate - second.stage2_k - written),
        ),
    )


def _flydsl(kernel: Kernel, part: Shard, sent: Pads) -> Skips:
    if not kernel.honours_pads:
        return Skips()
    width, hidden = part.padded_intermediate, part.padded_hidden
    pad = min(sent.intermediate, width)
    tail = -(width - pad) % (TILE_K // 2) if kernel.covers_tail else 0
    columns = 2 * (width - pad) + tail
    if kernel.layout is Layout.INTERLEAVE:
        written = round_up(columns, kernel.tile_n) // 2
    else:
        written = (columns + 2 * kernel.tile_n - 1) // kernel.tile_n // 2 * kernel.tile_n
    written = min(width, written)
    k2 = min(TILE_K, pad // 128 * 128)
    covered = min(hidden, round_up(hidden - min(sent.hidden, hidden), kernel.tile_n))
    return _with_loss(
        part,
        Skips(
            stage1_rows=2 * (width - written),
            stage1_k=sent.hidden % TILE_K // 128 * 128,
            stage2_n=hidden - covered,
            stage2_k=k2,
            effective=Pads(hidden=sent.hidden % TILE_K // 128 * 128, intermediate=width - written),
            uninitialised=max(0, width - k2 - written),
        ),
    )


def _opus(part: Shard, sent: Pads) -> Skips:
    # A compiled specialisation for `inter_dim - inter_dim_pad`; the hidden pad is ignored.
    pad = min(sent.intermediate, part.padded_intermediate)
    return _with_loss(
        part,
        Skips(
            stage1_rows=2 * pad,
            stage2_k=pad,
            effective=Pads(hidden=0, intermediate=pad),
        ),
    )


def _exact(part: Shard) -> Skips:
    # vLLM hands its Triton kernel the exact unpadded sizes; pads play no part.
    raw = part.raw
    return Skips(
        stage1_rows=2 * raw.intermediate,
        stage1_k=raw.hidden,
        stage2_n=raw.hidden,
        stage2_k=raw.intermediate,
        effective=raw,
    )


def _with_loss(part: Shard, found: Skips, *, k1_ends: tuple[int, ...] = ()) -> Skips:
    """`found` with the live weights among what it skips; `k1_ends`: where each K split ends."""
    raw, hidden, width = part.raw, part.hidden, part.intermediate
    tail = found.effective.hidden
    ends = k1_ends or (part.padded_hidden,)
    lost = Lost(
        stage1_neurons=_live(found.effective.intermediate - raw.intermediate, width),
        stage1_k=_live(sum(max(0, min(end, hidden) - (end - tail)) for end in ends), hidden),
        stage2_n=_live(found.stage2_n - raw.hidden, hidden),
        stage2_k=_live(found.stage2_k - raw.intermediate, width),
    )
    return replace(found, lost=lost)


def _live(count: int, there_are: int) -> int:
    """What of a skip is live: at least nothing, and never more than there is."""
    return min(max(0, count), there_are)
