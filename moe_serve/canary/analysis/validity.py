"""What must hold for a comparison to mean anything, apart from its numbers."""

from dataclasses import dataclass
from enum import StrEnum

from moe_serve.errors import UsageError


class Evidence(StrEnum):
    """Where the rates come from, best first."""

    COUNTERS = "A"
    PROBE = "B"
    STOCK_METRICS = "C"

    @property
    def meaning(self) -> str:
        """The grade in words."""
        return {
            Evidence.COUNTERS: "counters in the worker, at exact batch sizes",
            Evidence.PROBE: "closed-loop probes at fixed concurrency",
            Evidence.STOCK_METRICS: "vLLM's own metrics, modelled on load",
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Facts about a run that its numbers do not show.

    `planned_blocks` is the horizon that was declared up front: speed is looked at once, when
    `seen_blocks` (void ones included) has reached it. `config_differences` names what differs
    between the arms and is not under test.
    """

    planned_blocks: int
    seen_blocks: int
    void_reasons: tuple[str, ...] = ()
    config_differences: tuple[str, ...] = ()
    dead_arms: tuple[str, ...] = ()
    evidence: Evidence = Evidence.COUNTERS
    config_digest: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if self.planned_blocks < 1 or not len(self.void_reasons) <= self.seen_blocks:
            raise UsageError(
                f"{self.planned_blocks} blocks planned, {self.seen_blocks} seen, "
                f"{len(self.void_reasons)} void: that cannot be"
            )

    @property
    def horizon_reached(self) -> bool:
        """All planned blocks are over."""
        return self.seen_blocks >= self.planned_blocks

    @property
    def void_share(self) -> float | None:
        """Void blocks over all seen; None before the first block."""
        return len(self.void_reasons) / self.seen_blocks if self.seen_blocks else None
