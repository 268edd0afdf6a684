"""The analysis plan of a comparison: all statistics and thresholds, fixed before its start."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimator import EstimatorSettings
from moe_serve.analysis.guards import Guard
from moe_serve.analysis.noise import (
    FIRST_ANALYSIS,
    FIRST_ANALYSIS_WITHOUT_CALIBRATION,
    Calibration,
    Design,
    PodVariation,
)
from moe_serve.analysis.policy import Policy
from moe_serve.analysis.series import Cell
from moe_serve.analysis.windows import BlockingScheme
from moe_serve.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """The policy and the statistics of one comparison; its `digest` is recorded with the start.

    `under_test` names the facts in which the arms may differ. `canary_share` is the canary's
    planned share of both arms' requests; None leaves the split unchecked. `weights` are shares of
    busy time by cell of the primary kind; None takes the stable arm's in this comparison.
    `batches` are the batch sizes that decide, each of which must be covered; None: every exact one.
    """

    policy: Policy = field(default_factory=Policy)
    blocking: BlockingScheme = field(default_factory=BlockingScheme)
    deadline_seconds: float = 12 * 3600.0
    design: Design = Design.PARALLEL
    pod_variation: PodVariation = field(default_factory=PodVariation)
    calibration: Calibration | None = None
    under_test: tuple[str, ...] = ()
    canary_share: float | None = None
    guards: tuple[Guard, ...] = ()
    weights: Mapping[Cell, float] | None = None
    batches: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a plan under which no verdict is possible."""
        known = self.calibration
        if known is not None and known.block_seconds != self.blocking.block_seconds:
            raise UsageError(
                f"the A/A run had blocks of {known.block_seconds:g} s, the comparison has blocks "
                f"of {self.blocking.block_seconds:g} s: make them equal"
            )
        if not self.interim_analyses.possible:
            raise UsageError(
                f"cannot be decided: {self.interim_analyses.first} blocks of "
                f"{self.blocking.block_seconds:g} s are needed before the first interim analysis, "
                f"the deadline allows {self.interim_analyses.last}"
            )
        if self.canary_share is not None and not 0 < self.canary_share < 1:
            raise UsageError(f"canary_share is {self.canary_share}; allowed: 0 < x < 1")

    @property
    def digest(self) -> str:
        """`sha256:` and 16 hex digits that change with any part of the plan."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Every part by its name; `weights` as rows of a cell's fields and its share."""
        weights = None
        if self.weights is not None:
            cells = sorted(self.weights, key=lambda cell: cell.order)
            weights = [[*astuple(cell), self.weights[cell]] for cell in cells]
        return {**_without_infinity(asdict(replace(self, weights=None))), "weights": weights}

    @property
    def interim_analyses(self) -> InterimAnalyses:
        """After the first few blocks, then after every block up to the deadline."""
        first = FIRST_ANALYSIS if self.calibration else FIRST_ANALYSIS_WITHOUT_CALIBRATION
        return InterimAnalyses(
            first=first, last=int(self.deadline_seconds // self.blocking.block_seconds)
        )

    def settings(self, stable_pods: int, canary_pods: int) -> EstimatorSettings:
        """The estimator's settings for arms with these numbers of pods."""
        return EstimatorSettings(
            interim_analyses=self.interim_analyses,
            pod_variation=self.pod_variation,
            design=self.design,
            stable_pods=max(1, stable_pods),
            canary_pods=max(1, canary_pods),
            calibration=self.calibration,
            weights=self.weights,
            batches=self.batches,
            alpha_low=self.policy.alpha_promote,
            # Speed and each guard may roll back, so they share the chance of doing so wrongly.
            alpha_high=self.policy.alpha_rollback / (1 + len(self.guards)),
        )


def _without_infinity(value: Any) -> Any:
    """JSON has no infinity, which is the degrees of freedom of a declared figure: `"inf"`."""
    if isinstance(value, dict):
        return {key: _without_infinity(part) for key, part in value.items()}
    return "inf" if isinstance(value, float) and math.isinf(value) else value
