"""The weights that AITER's fused MoE kernels do not read, by the pads that the caller passes.

Written only from the kernels' sources: this is the oracle against which `moe_serve.padding` is
tested, so it must not use that package.

Sources: AITER `get_2stage_cfgs` (v0.1.12 to v0.1.20: what the pads become on the way to a kernel),
CK `moe_flatmm_kernel.hpp` (CK-tile), AITER `mixed_moe_gemm_2stage.py` (FlyDSL).

Units: `rows` are rows of w1 in *stored* order, `columns` are rows of w2 (output columns),
`k` ranges are input columns of a weight, `written` is in neurons.
"""

from dataclasses import dataclass
from typing import Literal

from moe_serve_emulation.errors import EmulationError

Path = Literal["cktile", "flydsl", "ignores"]
Layout = Literal["interleave", "separated"]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """One kernel build that AITER dispatches to.

    `path`: CK-tile, FlyDSL, or a kernel that ignores pads (CK two-stage, assembly).
    `layout`: order of the rows of w1: 16 gate and 16 up rows in turn, or all gate, then all up.
    `split_k`: parts into which CK-tile cuts the hidden dimension of stage 1.
    `tile_n`, `tile_k`: width and depth of a tile; CK-tile's depth is 256.
    `honours_pads`: False for the FlyDSL releases whose dispatcher passes no pads on.
    `covers_tail`: True with aiter#3401, FlyDSL's stage 1 then reaches what its stage 2 reads.
    `poison`: value of what the kernel never writes (on the GPU: whatever lay in the memory).
    """

    path: Path = "cktile"
    layout: Layout = "interleave"
    split_k: int = 1
    tile_n: int = 256
    tile_k: int = 256
    honours_pads: bool = True
    covers_tail: bool = False
    poison: float = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """The parts of each expert's weights that a call reads, and of the intermediate it writes."""

    rows: tuple[Range, ...]
    k1: tuple[Range, ...]
    written: int
    columns: int
    k2: tuple[Range, ...]

    @property
    def weights(self) -> int:
        """The number of weight elements read per expert."""
        n1, k1, k2 = (sum(hi - lo for lo, hi in part) for part in (self.rows, self.k1, self.k2))
        return n1 * k1 + self.columns * k2


def reads(
    *, hidden: int, inter: int, hidden_pad: int, intermediate_pad: int, config: KernelConfig
) -> Reads:
    """The parts that a call reads, for padded sizes `hidden` and `inter` and the pads passed.

    Raises:
        EmulationError: the kernel cannot run with these sizes or pads.
    """
    _require_runnable(hidden, inter, hidden_pad, intermediate_pad, config)
    if config.path == "cktile":
        return _cktile(hidden, inter, hidden_pad, intermediate_pad, config)
    if config.path == "flydsl" and config.honours_pads:
        return _flydsl(hidden, inter, hidden_pad, intermediate_pad, config)
    return everything(hidden=hidden, inter=inter)


def everything(*, hidden: int, inter: int) -> Reads:
    """The parts of a call that skips nothing: all of them."""
    return Reads(
        rows=((0, 2 * inter),), k1=((0, hidden),), written=inter, columns=hidden, k2=((0, inter),)
    )


def _cktile(hidden: int, inter: int, h_pad: int, i_pad: int, config: KernelConfig) -> Reads:
    # AITER: stage 1 gets n = i_pad//64*64*2 and k = h_pad//128*128, stage 2 n = h_pad//64*64 and
    # k = i_pad//128*128. The grid is not made smaller: each column is computed and written, the
    # last n rows of the *stored* order read as zero. K is skipped in the last K tile alone, and
    # in none when the number of K tiles is odd. Each split skips the tail of its own range.
    n1, k1 = i_pad // 64 * 64 * 2, h_pad // 128 * 128
    n2, k2 = h_pad // 64 * 64, i_pad // 128 * 128
    part = hidden // config.split_k
    return Reads(
        rows=((0, max(0, 2 * inter - n1)),),
        k1=tuple((lo, lo + part - _tail(part, k1, config.tile_k)) for lo in range(0, hidden, part)),
        written=inter,
        columns=max(0, hidden - n2),
        k2=((0, inter - _tail(inter, k2, config.tile_k)),),
    )


def _tail(length: int, k: int, tile_k: int) -> int:
    return min(k, tile_k) if length // tile_k % 2 == 0 else 0


def _flydsl(hidden: int, inter: int, h_pad: int, i_pad: int, config: KernelConfig) -> Reads:
    # The grids are made smaller: a column outside is never written. Stage 1's output is not
    # initialised; stage 2's buffer is zero from the sorting kernel.
    tile_n, tile_k = config.tile_n, config.tile_k
    extra = -(inter - i_pad) % (tile_k // 2) if config.covers_tail else 0
    wanted = 2 * inter - 2 * i_pad + extra
    if config.layout == "interleave":
        written = min(inter, -(-wanted // tile_n) * tile_n // 2)
        rows: tuple[Range, ...] = ((0, 2 * written),)
    else:
        written = min(inter, (wanted + 2 * tile_n - 1) // tile_n // 2 * tile_n)
        rows = ((0, written), (inter, inter + written))
    return Reads(
        rows=rows,
        k1=((0, hidden - h_pad % tile_k // 128 * 128),),
        written=written,
        columns=min(hidden, -(-(hidden - h_pad) // tile_n) * tile_n),
        k2=((0, inter - min(tile_k, i_pad // 128 * 128)),),
    )


def _require_runnable(hidden: int, inter: int, h_pad: int, i_pad: int, cfg: KernelConfig) -> None:
    if not (0 <= h_pad < hidden and 0 <= i_pad < inter):
        raise EmulationError(f"pads {h_pad}, {i_pad} do not fit into sizes {hidden}, {inter}")
    if cfg.path == "ignores":
        return
    # CK-tile indexes the scales of stage 2 in groups of 256 (aiter#5233); FlyDSL skips 128 at once.
    unit = 256 if cfg.path == "cktile" else 128
    if hidden % (unit * cfg.split_k) or inter % unit:
        raise EmulationError(
            f"{cfg.path} needs sizes that are multiples of {unit}, got {hidden} (in "
            f"{cfg.split_k} splits) and {inter}: pad the weights with zeros"
        )
