"""Launch shapes by batch, chosen with pads of zero by speed alone, and equal for all pads."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """One launch: rows of tokens, weight rows and columns of a tile; warps; pipeline stages.

    `swap` makes the weights the left operand of the matrix instruction.
    """

    rows: int
    width: int
    depth: int = 128
    warps: int = 4
    stages: int = 4
    swap: bool = False


# `python -m tools.gpu run tune` measures the candidates, with pads of zero.
DECODE = Tiles(rows=16, width=64)
PREFILL = Tiles(rows=64, width=64, stages=3)
# More rows than this to an expert, on average: the wider tile wastes less.
_FEW = 16


def tiles(tokens: int, top_k: int, experts: int) -> Tiles:
    """The launch for a batch; the pads have no say in it."""
    return DECODE if tokens * top_k <= _FEW * experts * 2 else PREFILL
