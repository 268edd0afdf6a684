"""Which kernel paths a fused-MoE call can reach in each AITER release.

Read in the tags v0.1.12 to v0.1.20.post1 (`fused_moe.py`: `get_2stage_cfgs`, `get_ksplit`, the
tuned tables), and in AITER's main of September 2026, whose dispatch has the same formulas. The
tags v0.1.21 to v0.1.26 themselves could not be read: those releases are judged so and marked
unverified. A call is one shape at every batch size, so the answer is a union: decode and prefill
take different kernels.
"""

from dataclasses import dataclass
from enum import StrEnum

from moe_serve.padding.builds import UNKNOWN, Build, ReleaseHistory
from moe_serve.padding.kernels import FLYDSL_TILES_N, TILE_K, Kernel, KernelPath, KernelPhase
from moe_serve.padding.shapes import Activation, Layout, Quant, Shard
from moe_serve.padding.versions import Version, parse_version

NEWEST_VERIFIED = "0.1.20.post1"

# Each release at which something that matters here changed.
_STARTS = (
    "0.1.12", "0.1.13.post1", "0.1.14", "0.1.15", "0.1.15.post3", "0.1.16", "0.1.17", "0.1.18",
    "0.1.24.post1",
)  # fmt: skip

_COMPUTE_UNITS = 256  # MI355X
_KSPLIT_TILE_N = 128
# AITER asks its tables for batches rounded up to powers of two; decode ends below 512 tokens.
_DECODE_BATCHES = tuple(2**power for power in range(10))


class FlydslPads(StrEnum):
    """What the dispatcher tells FlyDSL of the pads it was given."""

    WITHHELD = "withheld"
    AS_SENT = "as sent"
    WITHOUT_BIAS_ONLY = "only without bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class AiterEra:
    """The behaviour of one AITER release, as far as pads go."""

    version: Version
    text: str

    @property
    def splits_end_with_gelu(self) -> bool:
        """0.1.12 to 0.1.13 end a split SwiGLU with `gelu_and_mul` (aiter#2960)."""
        return not self._since("0.1.13.post1")

    @property
    def reads_gate_mode(self) -> bool:
        """0.1.14 and newer take w13's layout from the call; without it: SEPARATED."""
        return self._since("0.1.14")

    @property
    def flydsl_pads(self) -> FlydslPads:
        """#3184 passed the pads on; #3401 withholds them again where there is a bias."""
        if not self._since("0.1.15"):
            return FlydslPads.WITHHELD
        if not self._since("0.1.15.post3"):
            return FlydslPads.AS_SENT
        return FlydslPads.WITHOUT_BIAS_ONLY

    def flydsl_honours(self, bias: bool | None) -> bool:
        """Whether FlyDSL may be told the pads of experts with or without `bias` (None: unknown)."""
        pads = self.flydsl_pads
        return pads is FlydslPads.AS_SENT or (
            pads is FlydslPads.WITHOUT_BIAS_ONLY and bias is not True
        )

    @property
    def flydsl_covers_tail(self) -> bool:
        """#3401, by tag in 0.1.15.post3 and from 0.1.16 on."""
        return self._since("0.1.15.post3")

    @property
    def flydsl_untuned(self) -> bool:
        """0.1.16 and newer take FlyDSL for quantised activations without a tuned row too."""
        return self._since("0.1.16")

    @property
    def has_opus(self) -> bool:
        """The Opus a8w4 wrapper came with 0.1.17."""
        return self._since("0.1.17")

    @property
    def mixes_stages(self) -> bool:
        """0.1.18's tuned rows for 128 and 256 tokens: FlyDSL's stage 1, CK-tile's stage 2."""
        return self._since("0.1.18")

    @property
    def stops_misaligned(self) -> bool:
        """#5232: no CK-tile second stage where the neurons are no multiple of 256."""
        return self._since("0.1.24.post1")

    def layout_matches(self, layout: Layout, activation: Activation, *, told: bool) -> bool:
        """Whether w13 is read in its stored order; `told`: the call says which that is.

        Before 0.1.14 SwiGLU's kernel reads interleaved rows alone, and all others separated ones.
        """
        if self.reads_gate_mode:
            return told or layout is Layout.SEPARATED
        interleaved = activation is Activation.SWIGLUOAI
        return layout is (Layout.INTERLEAVE if interleaved else Layout.SEPARATED)

    def _since(self, text: str) -> bool:
        return self.version >= parse_version(text, what="AITER")


HISTORY: ReleaseHistory[AiterEra] = ReleaseHistory(
    product="AITER",
    starts=tuple(parse_version(text, what="AITER") for text in _STARTS),
    newest_read=parse_version(NEWEST_VERIFIED, what="AITER"),
    line=3,
    era=lambda version, text: AiterEra(version=version, text=text),
)


# What a call can reach when AITER's version is not known.
EVERY = HISTORY.every


def aiter_build(text: str | None, *, what: str = "--aiter") -> Build[AiterEra]:
    """What a version such as `0.1.15.post3` is judged as; None is the same as `unknown`.

    Raises:
        UsageError: not a version, or a release older than 0.1.12, whose code was never read.
    """
    return HISTORY.build(UNKNOWN if text is None else text, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """What of a layer decides its kernels: `bias` None means not known, so both are judged.

    `ksplit`: the value of `AITER_KSPLIT`; 0 or no variable: AITER chooses for each batch.
    """

    part: Shard
    quant: Quant
    layout: Layout
    activation: Activation
    bias: bool | None
    ksplit: int = 0


def reachable(era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    """Every kernel variant that a call of these experts can take under `era`."""
    if experts.quant is Quant.W4A8:
        return tuple(Kernel(path=KernelPath.TRITON, phase=phase) for phase in KernelPhase)
    swiglu = experts.activation is Activation.SWIGLUOAI
    found = _swiglu(era, experts) if swiglu else _silu(era, experts)
    return tuple(dict.fromkeys(found))


def _swiglu(era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    if _leaves_cktile(era, experts):
        decode = _flydsl(era, KernelPhase.DECODE, experts)
    else:
        decode = _cktile(era, experts, _swiglu_splits(era, experts))
    if experts.quant is Quant.W4A4:
        return (*decode, *_quantised_prefill(era, experts))
    return (*decode, *_prefill(era, experts))


def _leaves_cktile(era: AiterEra, experts: Experts) -> bool:
    """Whether #5232 sends a width that CK-tile gets wrong to FlyDSL: separated rows alone."""
    part = experts.part
    return (
        era.stops_misaligned
        and experts.layout is Layout.SEPARATED
        and part.padded_intermediate % TILE_K != 0
        and part.padded_intermediate % 128 == 0
        and part.padded_hidden % TILE_K == 0
    )


def _swiglu_splits(era: AiterEra, experts: Experts) -> tuple[int, ...]:
    """The split-K factors of CK-tile's first stage over all decode batches."""
    if era.reads_gate_mode and experts.layout is Layout.INTERLEAVE:
        return (1,)
    least = 2 if era.reads_gate_mode else 1  # separated: two at least
    return tuple(sorted({max(least, split) for split in _ksplits(experts)}))


def _silu(era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    quantised = experts.quant is Quant.W4A4
    if quantised and era.flydsl_untuned:
        return tuple(kernel for phase in KernelPhase for kernel in _flydsl(era, phase, experts))
    splits = tuple(split for split in _ksplits(experts) if split > 1)
    decode = (*_cktile(era, experts, splits), *_ignoring(experts))
    return (*decode, *_quantised_prefill(era, experts))


def _quantised_prefill(era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    flydsl = tuple(kernel for phase in KernelPhase for kernel in _flydsl(era, phase, experts))
    opus = experts.quant is Quant.W4A16 and era.has_opus
    return (*flydsl, *_ignoring(experts), *(_opus(experts) if opus else ()))


def _ignoring(experts: Experts) -> tuple[Kernel, ...]:
    """The kernels that take no notice of pads."""
    return tuple(
        Kernel(path=path, phase=phase, layout=experts.layout)
        for path in (KernelPath.CK2STAGES, KernelPath.ASM)
        for phase in KernelPhase
    )


def _prefill(era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    flydsl = _flydsl(era, KernelPhase.PREFILL, experts)
    untuned: tuple[Kernel, ...]
    if experts.layout is Layout.SEPARATED:
        # Above the bound the activations become fp4: FlyDSL, else CK's two stages.
        untuned = (
            Kernel(path=KernelPath.CK2STAGES, phase=KernelPhase.PREFILL, layout=experts.layout),
        )
        untuned += flydsl if era.flydsl_untuned else ()
        mixed: tuple[Kernel, ...] = ()
    else:
        untuned = _cktile(era, experts, _prefill_splits(era, experts), phase=KernelPhase.PREFILL)
        mixed = _mixed(era, flydsl) if era.mixes_stages else ()
    match _tuned(experts.part, experts.layout):
        case True:
            return (*flydsl, *mixed)
        case False:
            return untuned
        case _:
            return (*untuned, *flydsl, *mixed, *(_opus(experts) if era.has_opus else ()))


def _prefill_splits(era: AiterEra, experts: Experts) -> tuple[int, ...]:
    """Large batches are not split, unless AITER_KSPLIT says so to an AITER that heeds it."""
    return (1,) if era.reads_gate_mode else (max(1, experts.ksplit),)


def _mixed(era: AiterEra, flydsl: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    return tuple(
        Kernel(
            path=KernelPath.MIXED,
            phase=kernel.phase,
            layout=kernel.layout,
            tile_n=kernel.tile_n,
            honours_pads=kernel.honours_pads,
            covers_tail=kernel.covers_tail,
            stops_misaligned=era.stops_misaligned,
        )
        for kernel in flydsl
    )


def _opus(experts: Experts) -> tuple[Kernel, ...]:
    return (Kernel(path=KernelPath.OPUS, phase=KernelPhase.PREFILL, layout=experts.layout),)


def _tuned(part: Shard, layout: Layout) -> bool | None:
    """Whether AITER's tables hold a FlyDSL row for this shape; None for shapes never looked up."""
    if part.hidden != 2880 or part.padded_hidden != 3072 or part.experts > 128:
        return None
    widths = (3072,) if layout is Layout.INTERLEAVE else (3072, 1536, 512)
    return part.experts == 128 and part.padded_intermediate in widths


def _cktile(
    era: AiterEra,
    experts: Experts,
    splits: tuple[int, ...],
    *,
    phase: KernelPhase = KernelPhase.DECODE,
) -> tuple[Kernel, ...]:
    swiglu = experts.activation is Activation.SWIGLUOAI
    return tuple(
        Kernel(
            path=KernelPath.CKTILE,
            phase=phase,
            layout=experts.layout,
            split_k=split,
            gelu=split > 1 and swiglu and era.splits_end_with_gelu,
            stops_misaligned=era.stops_misaligned,
        )
        for split in splits
    )


def _flydsl(era: AiterEra, phase: KernelPhase, experts: Experts) -> tuple[Kernel, ...]:
    honours = era.flydsl_honours(experts.bias)
    return tuple(
        Kernel(
            path=KernelPath.FLYDSL,
            phase=phase,
            layout=experts.layout,
            tile_n=tile_n,
            honours_pads=honours,
            covers_tail=era.flydsl_covers_tail,
        )
        # Which tile a tuned row names is not known in advance, so all must be safe.
        for tile_n in (FLYDSL_TILES_N if honours else FLYDSL_TILES_N[-1:])
    )


def _ksplits(experts: Experts) -> tuple[int, ...]:
    """What `get_ksplit` returns over all decode batches, in ascending order; 1: no split."""
    if experts.ksplit:
        return (max(1, experts.ksplit),)
    return tuple(sorted({ksplit(tokens, experts.part) for tokens in _DECODE_BATCHES}))


def ksplit(tokens: int, part: Shard) -> int:
    """AITER's `get_ksplit` for a decode batch on MI355X (256 compute units); 1: no split."""
    if tokens * part.top_k > part.experts:
        return 1
    tiles = -(-part.padded_intermediate // _KSPLIT_TILE_N) * tokens * part.top_k
    if tiles >= _COMPUTE_UNITS:
        return 1
    for split in range(-(-_COMPUTE_UNITS // tiles), 1, -1):
        if part.padded_hidden % (split * TILE_K) == 0:
            return split
    return 1
