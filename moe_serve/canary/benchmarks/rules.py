"""What is declared before a benchmark starts; nothing of it may change after a result is seen."""

from dataclasses import dataclass, field

from moe_serve.canary.analysis.policy import Policy
from moe_serve.errors import UsageError

PAIRS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The protocol's limits, beside the policy's margin, harm and confidence.

    `claim` is a published ratio that is only reported on: 1.08 says 8 % faster. `pairs` is the
    horizon (None: as the results declare it, else 5). `latency_harm` is the share by which a p99
    may get worse. `max_half_width` is in log units.
    """

    policy: Policy = field(default_factory=Policy)
    claim: float = 1.08
    pairs: int | None = None
    latency_harm: float = 0.05
    max_half_width: float = 0.03

    def __post_init__(self) -> None:
        """Refuse a claim that is no ratio."""
        if not 0.5 <= self.claim <= 2:
            raise UsageError(
                f"--claim {self.claim}: a ratio from 0.5 to 2 is needed; 1.08 says 8 % faster"
            )
