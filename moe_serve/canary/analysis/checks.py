"""The judge's questions, each answered with a number against a threshold."""

from moe_serve.canary.analysis.estimate import Estimate, NoEstimate
from moe_serve.canary.analysis.policy import Policy
from moe_serve.canary.analysis.validity import Validity
from moe_serve.canary.analysis.verdict import Check, Severity
from moe_serve.canary.quality.result import NoQuality, Outcome, QualityResult

ABOVE_BOUND = "within_byte_bound"


def validity_checks(policy: Policy, validity: Validity) -> tuple[Check, ...]:
    """Whether the comparison can be trusted at all; a failure is INVALID."""
    share = validity.void_share
    return (
        _listed("arms_alive", validity.dead_arms, "an arm died", "both arms lived to the end"),
        _listed(
            "same_configuration",
            validity.config_differences,
            "the arms differ in what is not under test",
            "the arms differ only in what is under test",
        ),
        Check(
            name="void_blocks",
            number=share,
            threshold=policy.max_void_share,
            # Before the first block there is nothing to be void.
            passed=share is None or share <= policy.max_void_share,
            detail=_void_detail(validity),
        ),
    )


def _listed(name: str, faults: tuple[str, ...], bad: str, good: str) -> Check:
    return Check(
        name=name,
        number=float(len(faults)),
        threshold=0.0,
        passed=not faults,
        detail=f"{bad}: {', '.join(faults)}" if faults else good,
    )


def _void_detail(validity: Validity) -> str:
    void = len(validity.void_reasons)
    text = f"{void} of {validity.seen_blocks} blocks are void"
    return f"{text} (first: {validity.void_reasons[0]})" if void else text


def quality_check(quality: QualityResult | NoQuality) -> Check:
    """Whether the answers were shown to be the same; no data does not pass."""
    if isinstance(quality, NoQuality):
        return Check(
            name="same_answers", number=None, threshold=None, passed=False, detail=quality.reason
        )
    parts = [part for part in (quality.prefill, quality.decode) if part is not None]
    return Check(
        name="same_answers",
        number=max((part.upper for part in parts), default=None),
        threshold=quality.epsilon_nats,
        passed=quality.outcome is Outcome.PASSED,
        detail=quality.reason,
    )


def speed_checks(policy: Policy, primary: Estimate | NoEstimate) -> tuple[Check, ...]:
    """Gain, harm and coverage of the rate that decides; log ratios and shares."""
    name = policy.primary.value
    found = primary if isinstance(primary, Estimate) else None
    lack = primary.reason if isinstance(primary, NoEstimate) else ""
    return (
        Check(
            name=f"{name}_gain",
            number=found.lo if found else None,
            threshold=policy.log_margin,
            passed=found is not None and found.lo > policy.log_margin,
            detail=lack or f"lower end of the {name} rate's log ratio, must exceed the margin",
        ),
        Check(
            name=f"{name}_no_harm",
            number=found.hi if found else None,
            threshold=policy.log_harm,
            passed=found is not None and found.hi >= policy.log_harm,
            detail=lack or f"upper end of the {name} rate's log ratio, must not lie below",
        ),
        Check(
            name="coverage",
            number=found.covered_weight if found else None,
            threshold=policy.min_covered_weight,
            passed=found is not None and found.covered_weight >= policy.min_covered_weight,
            detail=lack or _coverage_detail(primary),
        ),
    )


def _coverage_detail(primary: Estimate | NoEstimate) -> str:
    uncovered = primary.uncovered if isinstance(primary, Estimate) else ()
    if not uncovered:
        return "every cell with weight is covered"
    named = ", ".join(f"{lost.cell} ({lost.weight:.1%})" for lost in uncovered[:4])
    more = f" and {len(uncovered) - 4} more" if len(uncovered) > 4 else ""
    return f"not covered: {named}{more}"


def bound_check(kernel: Estimate | NoEstimate, byte_bound: float | None) -> Check:
    """Whether the kernel's gain can come from the bytes it no longer fetches.

    `byte_bound` is log(bytes fetched by stable / by canary). A gain wholly above it has another
    cause, such as work that was wrongly left out; it is a warning, not good news.
    """
    if byte_bound is None or isinstance(kernel, NoEstimate):
        why = "no byte bound was given" if byte_bound is None else "there is no kernel estimate"
        return Check(
            name=ABOVE_BOUND,
            number=None,
            threshold=byte_bound,
            passed=True,
            detail=f"not checked: {why}",
            severity=Severity.WARNING,
        )
    above = kernel.lo > byte_bound
    return Check(
        name=ABOVE_BOUND,
        number=kernel.lo,
        threshold=byte_bound,
        passed=not above,
        detail=(
            "the kernel's gain lies wholly above what the saved bytes explain; look for work left "
            "out"
            if above
            else "the kernel gains no more than the saved bytes can explain"
        ),
        severity=Severity.WARNING,
    )
