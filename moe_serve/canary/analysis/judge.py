"""The decision: INVALID before ROLLBACK before PROMOTE, and else KEEP_GOING.

Speed is judged once, when the declared horizon is over. Broken answers roll back at any time.
"""

import math

from moe_serve.canary.analysis.checks import (
    bound_check,
    quality_check,
    speed_checks,
    validity_checks,
)
from moe_serve.canary.analysis.estimate import Estimate, NoEstimate
from moe_serve.canary.analysis.policy import OnNoGain, Policy
from moe_serve.canary.analysis.series import CellKind
from moe_serve.canary.analysis.validity import Validity
from moe_serve.canary.analysis.verdict import Check, Judgement, Verdict
from moe_serve.canary.quality.result import NoQuality, Outcome, QualityResult


def judge(
    policy: Policy,
    step: Estimate | NoEstimate,
    kernel: Estimate | NoEstimate,
    quality: QualityResult | NoQuality,
    validity: Validity,
    *,
    byte_bound: float | None = None,
) -> Judgement:
    """What to do with the canary, with every check behind it.

    `byte_bound` is log(bytes fetched by stable / by canary): the most that the kernel can gain.
    """
    primary = step if policy.primary is CellKind.STEP else kernel
    valid = validity_checks(policy, validity)
    speed = speed_checks(policy, primary)
    same, bound = quality_check(quality), bound_check(kernel, byte_bound)
    verdict, reason = _decide(policy, primary, quality, validity, valid, speed)
    if not bound.passed:
        reason = f"{reason}. Warning: {bound.detail}"
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
            for estimated in (step, kernel)
            if isinstance(estimated, Estimate)
            for stratum in estimated.buckets
        ),
        quality=quality.to_json(),
        evidence=validity.evidence,
        config_digest=validity.config_digest,
        checks=(*valid, same, *speed, bound),
        above_bound=not bound.passed,
    )


def _decide(
    policy: Policy,
    primary: Estimate | NoEstimate,
    quality: QualityResult | NoQuality,
    validity: Validity,
    valid: tuple[Check, ...],
    speed: tuple[Check, ...],
) -> tuple[Verdict, str]:
    failed = isinstance(quality, QualityResult) and quality.outcome is Outcome.FAILED
    answers = f"the answers differ: {quality.reason}" if failed else ""
    faults = [check.detail for check in valid if not check.passed]
    if validity.horizon_reached and isinstance(primary, NoEstimate):
        faults.append(f"no data: {primary.reason}")
    if faults:
        return Verdict.INVALID, "; ".join([*faults, *([answers] if answers else [])])
    if failed:
        return Verdict.ROLLBACK, f"{answers}; {_speed_text(primary)}"
    if not validity.horizon_reached or isinstance(primary, NoEstimate):
        left = validity.planned_blocks - validity.seen_blocks
        return Verdict.KEEP_GOING, (
            f"the look is at the end: {left} of {validity.planned_blocks} planned blocks are left"
        )
    return _on_speed(policy, primary, quality, speed)


def _on_speed(
    policy: Policy,
    primary: Estimate,
    quality: QualityResult | NoQuality,
    speed: tuple[Check, ...],
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
    same = isinstance(quality, QualityResult) and quality.outcome is Outcome.PASSED
    if same and all(check.passed for check in speed):
        return Verdict.PROMOTE, f"faster and the same answers: {shown}"
    return Verdict.KEEP_GOING, "; ".join([*_wanting(policy, primary, quality), shown])


def _wanting(policy: Policy, primary: Estimate, quality: QualityResult | NoQuality) -> list[str]:
    """What would decide it, one sentence each."""
    wanting: list[str] = []
    if primary.lo <= policy.log_margin:
        wanting.append(_more_blocks(policy, primary))
    if primary.covered_weight < policy.min_covered_weight:
        wanting.append(
            f"cells with {1 - primary.covered_weight:.0%} of the busy time lack data: load their "
            f"batch sizes (at least {policy.min_covered_weight:.0%} must be covered)"
        )
    if not (isinstance(quality, QualityResult) and quality.outcome is Outcome.PASSED):
        wanting.append(f"the answers are not shown to be the same: {quality.reason}")
    return wanting


def _more_blocks(policy: Policy, primary: Estimate) -> str:
    """How long a run would decide, were the estimate and the noise to stay as they are."""
    distance = abs(primary.theta - policy.log_margin)
    half = (primary.hi - primary.lo) / 2
    text = f"the margin of {policy.margin:+.1%} lies within the interval"
    if distance <= half / 10:
        return f"{text}, so near its middle that no reasonable run would decide"
    pairs = math.ceil(primary.pairs * (half / distance) ** 2)
    more = max(2, 2 * (pairs - primary.pairs))
    return (
        f"{text}: about {more} more blocks would decide it, in a new run whose horizon is "
        f"declared again ({2 * pairs} blocks)"
    )


def _speed_text(primary: Estimate | NoEstimate) -> str:
    if isinstance(primary, NoEstimate):
        return f"no {primary.kind.value} rate"
    ends = f"{math.expm1(primary.lo):+.1%} to {math.expm1(primary.hi):+.1%}"
    return f"{primary.kind.value} rate {primary.speedup - 1:+.1%} ({ends})"
