"""What was measured: per block, how often each cell ran in each arm and how long it took.

A cell is a kernel (one layer) or a whole step, at one batch size and in one mode. A block is
void rather than patched up whenever a counter did anything but grow.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from moe_serve.errors import UsageError

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


class Placement(StrEnum):
    """Which core (or GPU) ran which arm: `ab` has stable on the first; `ba` swaps them."""

    AB = "ab"
    BA = "ba"


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


@dataclass(frozen=True, slots=True)
class CellTotal:
    """How often a cell ran and how many seconds it was busy."""

    count: int
    seconds: float


class CounterReading(Protocol):
    """One arm's cumulative totals at a moment; a new process has a new generation."""

    @property
    def generation(self) -> int:
        """Identifies the process that counts."""

    @property
    def totals(self) -> Mapping[Cell, tuple[int, float]]:
        """Cell -> (count, busy seconds) since the process started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmBlock:
    """What one arm did within one block: growth of its counters, never negative."""

    totals: Mapping[Cell, CellTotal]

    def __post_init__(self) -> None:
        """Refuse what no growth can be, and take a read-only copy."""
        for cell, total in self.totals.items():
            if total.count < 0 or not (math.isfinite(total.seconds) and total.seconds >= 0):
                raise UsageError(f"{cell}: a block cannot hold {total}; delta() voids such blocks")
        object.__setattr__(self, "totals", MappingProxyType(dict(self.totals)))


@dataclass(frozen=True, slots=True)
class Void:
    """Why there is no data."""

    reason: str


def delta(before: CounterReading, after: CounterReading) -> ArmBlock | Void:
    """What happened between two readings of one arm; void if the counters did not simply grow.

    A cell that is new in `after` started from zero. Anything else than growth (another process, a
    cell gone, a smaller value, a count without time) says that the two readings do not belong
    together, so the whole block is void: half of it would be a guess.
    """
    if before.generation != after.generation:
        return Void("the process was restarted within the block")
    gone = before.totals.keys() - after.totals.keys()
    if gone:
        return Void(f"a counter disappeared: {min(map(str, gone))}")
    grown: dict[Cell, CellTotal] = {}
    for cell, (count, seconds) in after.totals.items():
        first_count, first_seconds = before.totals.get(cell, (0, 0.0))
        growth = CellTotal(count - first_count, seconds - first_seconds)
        fault = _fault(growth)
        if fault:
            return Void(f"{cell}: {fault}")
        if growth.count:
            grown[cell] = growth
    return ArmBlock(totals=grown)


def _fault(growth: CellTotal) -> str | None:
    if not math.isfinite(growth.seconds):
        return "its time is not a finite number"
    if growth.count < 0 or growth.seconds < 0:
        return "a counter went backwards"
    if (growth.count == 0) != (growth.seconds == 0):
        return "count and time did not grow together"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBlock:
    """Both arms over the same stretch of time, or the reason why it is void."""

    index: int
    start_seconds: float
    placement: Placement
    stable: ArmBlock | None
    canary: ArmBlock | None
    void_reason: str | None = field(default=None)

    def __post_init__(self) -> None:
        """A block is either whole or void with a reason; nothing lies between."""
        whole = self.stable is not None and self.canary is not None
        if whole == (self.void_reason is not None):
            raise UsageError(
                f"block {self.index}: give both arms' data, or a reason why it is void, not both"
            )


def paired_block(
    *,
    index: int,
    start_seconds: float,
    placement: Placement,
    stable: ArmBlock | Void,
    canary: ArmBlock | Void,
) -> PairedBlock:
    """Pair the arms' deltas; one void arm voids the block, with the arm's name in the reason."""
    arms = (("stable", stable), ("canary", canary))
    faults = [f"{name}: {arm.reason}" for name, arm in arms if isinstance(arm, Void)]
    return PairedBlock(
        index=index,
        start_seconds=start_seconds,
        placement=placement,
        stable=stable if isinstance(stable, ArmBlock) and not faults else None,
        canary=canary if isinstance(canary, ArmBlock) and not faults else None,
        void_reason="; ".join(faults) or None,
    )


def void_reasons(blocks: Iterable[PairedBlock]) -> tuple[str, ...]:
    """`block 3: ...` for every void block, in order."""
    return tuple(
        f"block {block.index}: {block.void_reason}"
        for block in blocks
        if block.void_reason is not None
    )
