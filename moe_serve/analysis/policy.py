"""What an operator declares before a canary starts; nothing of it may change after data is seen."""

import math
import sys
from dataclasses import dataclass
from enum import StrEnum

from moe_serve.analysis.series import CellKind
from moe_serve.errors import UsageError
from moe_serve.quality.finding import QualityMode, QualityPolicy

_ABOVE_0, _LARGEST = math.ulp(0), sys.float_info.max
_BELOW_HALF, _BELOW_1 = math.nextafter(0.5, 0), math.nextafter(1, 0)


class OnNoGain(StrEnum):
    """What to do when the gain is shown to be smaller than the margin."""

    ROLLBACK = "rollback"
    KEEP_GOING = "keep_going"


class Uncovered(StrEnum):
    """What a promotion takes of busy time that lacks data: that it gains nothing, or that it gains
    what the rest does (how verdicts were before the policy said it).
    """

    NO_GAIN = "no_gain"
    AS_COVERED = "as_covered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one comparison.

    `margin` and `harm` are ratios minus one: 0.03 asks for a proven gain of more than 3 %; 0.01
    calls it harm when a loss of more than 1 % is proven. `primary` is the rate that decides.
    `alpha_promote` is the chance, over all looks, of promoting a canary whose gain is just the
    margin; `alpha_rollback` that of rolling back one whose gain is above it, for speed's sake. A
    cell of at least `cell_weight` that is slower by more than `cell_harm` forbids a promotion.
    `split_evidence` is how much better another traffic split must explain the counts to void
    the comparison. `quality_mode` says how the answers are compared, and so which of
    `quality_epsilon_nats` (nats a token) and `quality_margin` (a share of items) counts;
    `quality_items` is how many items the task has (None: as many as its comparison planned), and
    `quality_alpha` the largest level at which its pass counts (None: any, as was before the policy
    said it). The other figures are shares, but for seconds.
    """

    margin: float = 0.03
    harm: float = 0.01
    primary: CellKind = CellKind.STEP
    on_no_gain: OnNoGain = OnNoGain.ROLLBACK
    alpha_promote: float = 0.05
    alpha_rollback: float = 0.02
    min_covered_weight: float = 0.8
    uncovered: Uncovered = Uncovered.NO_GAIN
    max_void_share: float = 0.2
    cell_weight: float = 0.05
    cell_harm: float = 0.03
    blind_seconds: float = 900.0
    split_evidence: float = 1000.0
    quality_mode: QualityMode = QualityMode.IDENTICAL
    quality_epsilon_nats: float = 0.005
    quality_margin: float = 0.02
    quality_items: int | None = None
    quality_alpha: float | None = None

    def __post_init__(self) -> None:
        """Refuse rules that would let everything, or nothing, pass."""
        for keys, low, high, allowed in (
            ("margin harm max_void_share cell_harm", 0, _BELOW_1, "0 <= x < 1"),
            (
                "min_covered_weight quality_epsilon_nats quality_margin cell_weight",
                _ABOVE_0,
                1,
                "0 < x <= 1",
            ),
            ("alpha_promote alpha_rollback", _ABOVE_0, _BELOW_HALF, "0 < x < 0.5"),
            ("blind_seconds split_evidence", _ABOVE_0, _LARGEST, "above 0"),
        ):
            for key in keys.split():
                if not low <= getattr(self, key) <= high:
                    raise UsageError(f"policy: {key} is {getattr(self, key)}; allowed: {allowed}")

    @property
    def log_margin(self) -> float:
        """The log ratio that the lower end must exceed for a promotion."""
        return math.log1p(self.margin)

    @property
    def log_harm(self) -> float:
        """The log ratio below which the upper end proves harm (negative)."""
        return math.log1p(-self.harm)

    @property
    def quality_allowed(self) -> float:
        """What the answers may lose: nats a token, or a share of a task's items."""
        identical = self.quality_mode is QualityMode.IDENTICAL
        return self.quality_epsilon_nats if identical else self.quality_margin

    @property
    def quality_policy(self) -> QualityPolicy:
        """What a comparison of answers must have asked."""
        return QualityPolicy(
            mode=self.quality_mode,
            allowed=self.quality_allowed,
            items=self.quality_items,
            alpha=self.quality_alpha,
        )
