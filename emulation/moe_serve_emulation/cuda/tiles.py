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


# The fastest of the candidates of `python -m tools.gpu run tune` on an H200, with pads of zero: at
# 16 and 64 tokens with 32 and with 128 experts (DECODE), and at a single token (LONE).
DECODE = Tiles(rows=16, width=128, stages=2)
LONE = Tiles(rows=16, width=128, stages=3)
PREFILL = Tiles(rows=64, width=64, stages=3)
# Pairs of a token and an expert: so few leave most of the GPU waiting for memory.
_LONE_PAIRS = 16
# More rows than this to an expert, on average: a taller tile wastes less.
_FEW = 16


def tiles(tokens: int, top_k: int, experts: int) -> Tiles:
    """The launch for a batch; the pads have no say in it."""
    pairs = tokens * top_k
    if pairs <= _LONE_PAIRS:
        return LONE
    return DECODE if pairs <= 2 * _FEW * experts else PREFILL
