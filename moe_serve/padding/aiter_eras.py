"""Which kernel paths a fused-MoE call can reach in each AITER release.

Read in the tags v0.1.12 to v0.1.20.post1 (`fused_moe.py`: `get_2stage_cfgs`, `get_ksplit`, the
tuned tables). Newer releases are judged as the newest known. A call is one shape at every batch
size, so the answer is a union: decode and prefill take different kernels.
"""

from dataclasses import dataclass
from enum import StrEnum

from moe_serve.errors import UsageError
from moe_serve.padding.kernels import FLYDSL_TILES_N, TILE_K, Kernel, Path, Phase
from moe_serve.padding.shapes import Layout, Quant, Shard
from moe_serve.padding.versions import Version, parse_version

OLDEST = "0.1.12"
NEWEST_VERIFIED = "0.1.20.post1"

_COMPUTE_UNITS = 256  # MI355X
_KSPLIT_TILE_N = 128


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
    def verified(self) -> bool:
        """Whether this release's source was read."""
        return self.version <= parse_version(NEWEST_VERIFIED, what="AITER")

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

    @property
    def flydsl_covers_tail(self) -> bool:
        """#3401, by tag in 0.1.15.post3 and from 0.1.16 on."""
        return self._since("0.1.15.post3")

    @property
    def has_opus(self) -> bool:
        """The Opus a8w4 wrapper came with 0.1.17."""
        return self._since("0.1.17")

    def _since(self, text: str) -> bool:
        return self.version >= parse_version(text, what="AITER")


def aiter_era(text: str, *, what: str = "--aiter") -> AiterEra:
    """The era of a version such as `0.1.15.post3`.

    Raises:
        UsageError: not a version, or older than 0.1.12, whose code was never read.
    """
    version = parse_version(text, what=what)
    if version < parse_version(f"{OLDEST}.dev0", what=what):
        raise UsageError(f"{what}: {text} is older than {OLDEST}, the oldest release that is known")
    return AiterEra(version=version, text=text)


# One release of every behaviour: what a call can reach when AITER's version is not known.
EVERY_ERA = tuple(
    aiter_era(text) for text in (OLDEST, "0.1.14", "0.1.15", "0.1.16", NEWEST_VERIFIED)
)


def reachable(
    era: AiterEra, part: Shard, quant: Quant, layout: Layout, *, bias: bool | None
) -> tuple[Kernel, ...]:
    """Every kernel variant that a call of this shape can take under `era`."""
    if quant is Quant.W4A8:
        return tuple(Kernel(path=Path.TRITON, phase=phase) for phase in Phase)
    if quant is Quant.W4A4:
        return (*_w4a4(era, part, layout, bias=bias),)
    decode = tuple(
        Kernel(path=Path.CKTILE, phase=Phase.DECODE, layout=layout, split_k=split)
        for split in _splits(era, part, layout)
    )
    return (*decode, *_prefill(era, part, layout, bias=bias))


def _prefill(
    era: AiterEra, part: Shard, layout: Layout, *, bias: bool | None
) -> tuple[Kernel, ...]:
    flydsl = _flydsl(era, Phase.PREFILL, layout, bias=bias)
    untuned: tuple[Kernel, ...]
    if layout is Layout.SEPARATED:
        # Above the bound the activations become fp4: tuned FlyDSL rows, else CK's two stages.
        untuned = (Kernel(path=Path.CK2STAGES, phase=Phase.PREFILL, layout=layout),)
    else:
        untuned = (Kernel(path=Path.CKTILE, phase=Phase.PREFILL, layout=layout),)
    match _tuned(part, layout):
        case True:
            return flydsl
        case False:
            return untuned
        case _:
            opus = (Kernel(path=Path.OPUS, phase=Phase.PREFILL, layout=layout),)
            return (*untuned, *flydsl, *(opus if era.has_opus else ()))


def _tuned(part: Shard, layout: Layout) -> bool | None:
    """Whether AITER's tables hold a FlyDSL row for this shape; None for shapes never looked up."""
    if part.hidden != 2880 or part.padded_hidden != 3072 or part.experts > 128:
        return None
    widths = (3072,) if layout is Layout.INTERLEAVE else (3072, 1536, 512)
    return part.experts == 128 and part.padded_intermediate in widths


def _w4a4(era: AiterEra, part: Shard, layout: Layout, *, bias: bool | None) -> tuple[Kernel, ...]:
    both = tuple(
        Kernel(path=path, phase=phase, layout=layout)
        for path in (Path.CK2STAGES, Path.ASM)
        for phase in Phase
    )
    flydsl = tuple(kernel for phase in Phase for kernel in _flydsl(era, phase, layout, bias=bias))
    cktile = tuple(
        Kernel(path=Path.CKTILE, phase=Phase.DECODE, layout=layout, split_k=split)
        for split in _splits(era, part, layout)
    )
    return (*cktile, *flydsl, *both)


def _flydsl(
    era: AiterEra, phase: Phase, layout: Layout, *, bias: bool | None
) -> tuple[Kernel, ...]:
    pads = era.flydsl_pads
    honours = pads is FlydslPads.AS_SENT or (
        pads is FlydslPads.WITHOUT_BIAS_ONLY and bias is not True
    )
    return tuple(
        Kernel(
            path=Path.FLYDSL,
            phase=phase,
            layout=layout,
            tile_n=tile_n,
            honours_pads=honours,
            covers_tail=era.flydsl_covers_tail,
        )
        # Which tile a tuned row names is not known in advance, so all must be safe.
        for tile_n in (FLYDSL_TILES_N if honours else FLYDSL_TILES_N[-1:])
    )


def _splits(era: AiterEra, part: Shard, layout: Layout) -> tuple[int, ...]:
    """The split-K factors of CK-tile's first stage over all decode batches."""
    if era.reads_gate_mode and layout is Layout.INTERLEAVE:
        return (1,)
    found = {ksplit(tokens, part) for tokens in range(1, part.experts // part.top_k + 1)} | {1}
    if era.reads_gate_mode:  # separated: two at least
        found = {max(2, split) for split in found}
    return tuple(sorted(found))


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
