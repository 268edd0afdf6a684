"""What an operator declares before a canary starts; nothing of it may change after data is seen."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from moe_serve.canary.analysis.series import CellKind
from moe_serve.errors import UsageError


class OnNoGain(StrEnum):
    """What to do when the gain is shown to be smaller than the margin."""

    ROLLBACK = "rollback"
    KEEP_GOING = "keep_going"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one comparison.

    `margin` and `harm` are ratios minus one: 0.03 asks for a proven gain of more than 3 %; 0.01
    calls it harm when a loss of more than 1 % is proven. `primary` is the rate that decides. The
    other figures are shares, but for `quality_epsilon_nats`.
    """

    margin: float = 0.03
    harm: float = 0.01
    primary: CellKind = CellKind.STEP
    on_no_gain: OnNoGain = OnNoGain.ROLLBACK
    confidence: float = 0.95
    min_covered_weight: float = 0.8
    max_void_share: float = 0.2
    quality_epsilon_nats: float = 0.005

    def __post_init__(self) -> None:
        """Refuse rules that would let everything, or nothing, pass."""
        for key in ("margin", "harm", "max_void_share"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"policy: {key} is {getattr(self, key)}; allowed: 0 <= x < 1")
        for key in ("confidence", "min_covered_weight", "quality_epsilon_nats"):
            if not 0 < getattr(self, key) <= 1:
                raise UsageError(f"policy: {key} is {getattr(self, key)}; allowed: 0 < x <= 1")

    @property
    def log_margin(self) -> float:
        """The log ratio that the lower end must exceed for a promotion."""
        return math.log1p(self.margin)

    @property
    def log_harm(self) -> float:
        """The log ratio below which the upper end proves harm (negative)."""
        return math.log1p(-self.harm)

    def to_json(self) -> dict[str, object]:
        """Every rule by its name."""
        return asdict(self)


def config_digest(policy: Policy, facts: Mapping[str, object]) -> str:
    """A short digest of the policy and of the arms' configurations, to be written down up front.

    `facts` must be made of JSON's own types; the order of keys does not matter.
    """
    document = {"policy": policy.to_json(), "facts": facts}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]
