"""Cells, the unit that is compared: a MoE kernel of one layer, or a whole engine step, at one batch
size and in one mode.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DECODE, MIXED = "decode", "mixed"
# Batches above the largest eager bucket, as the record has them; the exporter says `+Inf`.
OVERFLOW = 0
# Up to here an eager call's bucket is its exact batch size, above it a power of two.
EXACT_ROWS = 64
# A captured graph always runs at the size that it was captured for.
_GRAPHS = ("full", "piecewise")


class CellKind(StrEnum):
    """What a cell counts: invocations of the fused MoE kernel, or whole engine steps."""

    KERNEL = "kernel"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One thing that is compared like with like.

    `layer` is None for steps, and for what is pooled over layers; `phase` and `mode` are the
    exporter's: pure decode batches, mixed ones or both; a graph or eager calls. Whole steps have no
    mode, and their buckets are those of eager calls.
    """

    kind: CellKind
    layer: int | None
    bucket: int
    phase: str = DECODE
    mode: str = ""

    @property
    def exact(self) -> bool:
        """Whether all that it counts is decode at one batch size: else a mix within it could differ
        between the arms, and look like a gain.
        """
        sized = self.mode in _GRAPHS or self.bucket <= EXACT_ROWS
        return self.phase == DECODE and self.bucket != OVERFLOW and sized

    @property
    def order(self) -> tuple[str, str, int, int, str]:
        """A sort key: kind, phase, batch size, layer, mode."""
        layer = -1 if self.layer is None else self.layer
        return (self.kind.value, self.phase, self.bucket, layer, self.mode)

    def __str__(self) -> str:
        """`kernel, layer 3, batch 8, full graph`."""
        layer = "" if self.layer is None else f", layer {self.layer}"
        phase = "" if self.phase == DECODE else f", phase {self.phase or 'unknown'}"
        if self.phase == MIXED:
            phase = ", mixed"
        size = f"batch {self.bucket}"
        if self.bucket == OVERFLOW:
            size = "batch of unknown size"
        elif self.mode not in _GRAPHS and self.bucket > EXACT_ROWS:
            size = f"batch {self.bucket // 2 + 1} to {self.bucket}"
        mode = f", {self.mode} graph" if self.mode in _GRAPHS else f", {self.mode}"
        return f"{self.kind.value}{layer}{phase}, {size}{mode if self.mode else ''}"
