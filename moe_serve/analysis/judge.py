"""Step 5 of a comparison: checks become a verdict.

INVALID goes before ROLLBACK, ROLLBACK before PROMOTE; the rest is KEEP_GOING. The verdict is valid
at every interim analysis, since the estimate's interval is.
"""

import math

from moe_serve.analysis.checks import Checks, lower_end
from moe_serve.analysis.estimate import Estimate, Estimates, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings
from moe_serve.analysis.policy import OnNoGain, Policy
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.verdict import Check, Judgement, Verdict
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality, QualityOutcome


def decide(
    policy: Policy,
    settings: EstimatorSettings,
    estimates: Estimates,
    checks: Checks,
    quality: QualityFinding | NoQuality,
    validity: Validity,
    *,
    neurons: tuple[int, int] | None = None,
) -> Judgement:
    """What to do with the canary, with every check behind it.

    `settings` are those of the estimates; `neurons` the canary's lost and live neurons.
    """
    primary = estimates.primary
    verdict, reason = _decide(policy, settings, primary, checks, quality, validity)
    if neurons is not None and neurons[0] > 0:
        reason = f"{reason}; the canary loses {neurons[0]} of {neurons[1]} neurons"
    if not checks.byte_bound.passed:
        reason = f"{reason}. Warning: {checks.byte_bound.detail}"
    found = primary if isinstance(primary, Estimate) else None
    return Judgement(
        verdict=verdict,
        reason=reason,
        theta=found.theta if found else None,
        lo=found.lo if found else None,
        hi=found.hi if found else None,
        covered_weight=found.covered_weight if found else None,
        strata=tuple(
            stratum
            for estimated in (estimates.step, estimates.kernel)
            if isinstance(estimated, Estimate)
            for stratum in estimated.buckets
        ),
        quality=quality.to_json(),
        evidence=validity.grade,
        source=validity.evidence,
        comparator=validity.comparator,
        analysis_plan_digest=validity.analysis_plan_digest,
        checks=checks.all(),
        above_bound=not checks.byte_bound.passed,
    )


def _decide(
    policy: Policy,
    settings: EstimatorSettings,
    primary: Estimate | NoEstimate,
    checks: Checks,
    quality: QualityFinding | NoQuality,
    validity: Validity,
) -> tuple[Verdict, str]:
    failed = isinstance(quality, QualityFinding) and quality.outcome is QualityOutcome.FAILED
    answers = f"the answers differ: {quality.reason}" if failed else ""
    faults = [check.detail for check in checks.validity if not check.passed]
    if validity.deadline_reached and isinstance(primary, NoEstimate):
        faults.append(f"no data: {primary.reason}")
    if faults:
        return Verdict.INVALID, "; ".join([*faults, *([answers] if answers else [])])
    if failed:
        return Verdict.ROLLBACK, f"{answers}; {_speed_text(primary)}"
    if broken := [guard.check.detail for guard in checks.guards if guard.failed]:
        return Verdict.ROLLBACK, f"worse for users: {'; '.join(broken)}; {_speed_text(primary)}"
    if isinstance(primary, NoEstimate):
        return Verdict.KEEP_GOING, f"no estimate yet: {primary.reason}"
    held = all(guard.check.passed for guard in checks.guards)
    verdict, reason = _on_speed(policy, primary, quality, checks.speed, held=held)
    if verdict is Verdict.KEEP_GOING:
        left = "the deadline is reached: a person decides" if validity.deadline_reached else ""
        wanting = _wanting(policy, settings, validity, primary, quality, checks.speed)
        wanting += [
            f"not shown to be within its guard: {guard.check.detail}"
            for guard in checks.guards
            if not guard.check.passed
        ]
        reason = "; ".join(part for part in (reason, *wanting, left) if part)
    return verdict, reason


def _on_speed(
    policy: Policy,
    primary: Estimate,
    quality: QualityFinding | NoQuality,
    speed: tuple[Check, ...],
    *,
    held: bool,
) -> tuple[Verdict, str]:
    shown = _speed_text(primary)
    if primary.hi < policy.log_harm:
        return Verdict.ROLLBACK, f"harm: slower by more than {policy.harm:.1%}; {shown}"
    if primary.hi < policy.log_margin:
        reason = f"no gain: shown to be below the margin of {policy.margin:+.1%}; {shown}"
        match policy.on_no_gain:
            case OnNoGain.ROLLBACK:
                return Verdict.ROLLBACK, reason
            case OnNoGain.KEEP_GOING:
                return Verdict.KEEP_GOING, f"{reason}; the policy leaves this to a person"
    same = isinstance(quality, QualityFinding) and quality.outcome is QualityOutcome.PASSED
    if same and held and all(check.passed for check in speed):
        return Verdict.PROMOTE, f"faster and the same answers: {shown}"
    return Verdict.KEEP_GOING, shown


def _wanting(
    policy: Policy,
    settings: EstimatorSettings,
    validity: Validity,
    primary: Estimate,
    quality: QualityFinding | NoQuality,
    speed: tuple[Check, ...],
) -> list[str]:
    """What would decide it, one sentence each."""
    wanting: list[str] = []
    if primary.hi < policy.log_margin:
        pass
    elif primary.lo <= policy.log_margin:
        wanting.append(_time_left(policy, settings, validity, primary))
    elif lower_end(policy, primary) <= policy.log_margin:
        wanting.append(
            "the margin is exceeded where there is data, and not once the rest is taken as no "
            "gain: load its batch sizes"
        )
    if primary.covered_weight < policy.min_covered_weight:
        wanting.append(
            f"cells with {1 - primary.covered_weight:.0%} of the busy time lack data: load their "
            f"batch sizes (at least {policy.min_covered_weight:.0%} must be covered)"
        )
        wanting += [check.detail for check in speed if check.name == "coverage"]
    own = ("every_cell", "planned_batches", "mixed_no_harm", "configuration_known")
    wanting += [check.detail for check in speed if check.name in own and not check.passed]
    if not (isinstance(quality, QualityFinding) and quality.outcome is QualityOutcome.PASSED):
        wanting.append(f"the answers are not shown to be the same: {quality.reason}")
    return wanting


def _time_left(
    policy: Policy, settings: EstimatorSettings, validity: Validity, primary: Estimate
) -> str:
    """How much more time decides it, were the estimate and the noise to stay as they are."""
    text = f"the margin of {policy.margin:+.1%} lies within the interval"
    gap = primary.theta - policy.log_margin
    quantile = (primary.theta - primary.lo if gap > 0 else primary.hi - primary.theta) / math.sqrt(
        settings.offset_sd**2 + primary.block_sd**2 / primary.blocks
    )
    noise = (gap / quantile) ** 2 - settings.offset_sd**2
    if noise <= 0:
        return f"{text}, and no time decides it: it takes more pods an arm, or a crossover"
    blocks = math.ceil(primary.block_sd**2 / noise)
    if blocks > validity.deadline_blocks:
        return f"{text}, and as things stand the deadline comes before a decision"
    more = max(1, blocks - primary.blocks)
    return f"{text}: as things stand about {duration(more * validity.block_seconds)} more decide it"


def duration(seconds: float) -> str:
    """`40 s`, `25 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _speed_text(primary: Estimate | NoEstimate) -> str:
    if isinstance(primary, NoEstimate):
        return f"no {primary.kind.value} rate"
    ends = f"{math.expm1(primary.lo):+.1%} to {math.expm1(primary.hi):+.1%}"
    return f"{primary.kind.value} rate {primary.speedup - 1:+.1%} ({ends})"
