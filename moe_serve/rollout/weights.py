"""Who gets which share of the requests."""

from dataclasses import dataclass
from enum import StrEnum

from moe_serve.errors import UsageError

ALL = 100


class Track(StrEnum):
    """`baseline` is a fresh copy of stable, of the canary's size: both are compared."""

    STABLE = "stable"
    BASELINE = "baseline"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Percent of the requests, by track; together 100."""

    stable: int
    baseline: int = 0
    canary: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no split of all requests."""
        parts = (self.stable, self.baseline, self.canary)
        if min(parts) < 0 or sum(parts) != ALL:
            raise UsageError(f"weights {self}: whole percentages that sum to {ALL} are needed")

    def of(self, track: Track) -> int:
        """One track's percentage."""
        return {
            Track.STABLE: self.stable,
            Track.BASELINE: self.baseline,
            Track.CANARY: self.canary,
        }[track]

    def __str__(self) -> str:
        return "/".join(f"{track} {self.of(track)}" for track in Track if self.of(track))


NO_CANARY_TRAFFIC = Weights(stable=ALL)
