"""Step 4 of a comparison: estimates and observations become checks: numbers with thresholds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.special import fdtri, ndtri  # type: ignore[import-untyped]  # it ships no types

from moe_serve.analysis.estimate import Estimate, Estimates, NoEstimate, SeriesPoint
from moe_serve.analysis.estimator import EstimatorSettings
from moe_serve.analysis.guards import GuardFinding
from moe_serve.analysis.noise import Calibration, plain_variance
from moe_serve.analysis.policy import Policy, Uncovered
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.verdict import Check, Severity
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality, QualityOutcome

ABOVE_BOUND = "within_byte_bound"
# The chance that noise alone trips a check of validity at one look.
RARE = 0.001
DRIFT_BLOCKS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Every check of one comparison, by the question that it answers.

    `validity`: can the comparison be trusted; `declared`: what rests on the policy alone;
    `quality`: are the answers the same; `guards`: are users no worse off; `speed`: is the canary
    faster; `byte_bound`: can saved bytes explain the kernel's gain.
    """

    validity: tuple[Check, ...]
    declared: tuple[Check, ...]
    quality: Check
    guards: tuple[GuardFinding, ...]
    speed: tuple[Check, ...]
    byte_bound: Check

    def all(self) -> tuple[Check, ...]:
        """In the order of the verdict's JSON."""
        guards = (guard.check for guard in self.guards)
        return (
            *self.validity, *self.declared, self.quality, *guards, *self.speed, self.byte_bound,
        )  # fmt: skip


def check_all(
    policy: Policy,
    settings: EstimatorSettings,
    estimates: Estimates,
    quality: QualityFinding | NoQuality,
    validity: Validity,
    *,
    guards: Sequence[GuardFinding] = (),
    byte_bound: float | None = None,
) -> Checks:
    """All checks; `settings` are those of the estimates.

    `byte_bound` is log(bytes fetched by stable / by canary), None where it is not known.
    """
    primary = estimates.primary
    return Checks(
        validity=validity_checks(policy, validity, primary, settings.calibration),
        declared=declared_checks(validity),
        quality=quality_check(quality),
        guards=tuple(guards),
        speed=(
            *speed_checks(policy, primary),
            *planned_batches_check(settings, primary),
            mixed_check(policy, estimates.mixed),
            known_check(validity),
        ),
        byte_bound=bound_check(estimates.kernel, byte_bound),
    )


def validity_checks(
    policy: Policy,
    validity: Validity,
    primary: Estimate | NoEstimate,
    calibration: Calibration | None = None,
) -> tuple[Check, ...]:
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
            name="void_windows",
            number=share,
            threshold=policy.max_void_share,
            # Before the first window there is nothing to be void.
            passed=share is None or share <= policy.max_void_share,
            detail=_void_detail(validity),
        ),
        _blind_check(policy, validity),
        _split_check(policy, validity),
        _noise_check(primary, calibration),
        _drift_check(primary),
    )


def _blind_check(policy: Policy, validity: Validity) -> Check:
    age = validity.blind_seconds
    return Check(
        name="data_fresh",
        number=age,
        threshold=policy.blind_seconds,
        passed=age is None or age <= policy.blind_seconds,
        detail="blind: the last data of an arm is too old"
        if age is not None and age > policy.blind_seconds
        else "age of the older arm's last data, seconds",
    )


def _split_check(policy: Policy, validity: Validity) -> Check:
    requests, threshold = validity.requests, math.log(policy.split_evidence)
    if requests is None:
        return Check(
            name="traffic_split",
            number=None,
            threshold=threshold,
            passed=True,
            detail="not checked: no metric tells how many requests each arm got",
            severity=Severity.WARNING,
        )
    found = requests.evidence_against
    return Check(
        name="traffic_split",
        number=found,
        threshold=threshold,
        passed=found <= threshold,
        detail=f"sample-ratio mismatch: the canary got {requests.canary} of "
        f"{requests.canary + requests.stable} requests, {requests.canary_share:.1%} were due"
        if found > threshold
        else "log evidence that the arms got another share of the requests than was due",
    )


def _noise_check(primary: Estimate | NoEstimate, calibration: Calibration | None) -> Check:
    if calibration is None or isinstance(primary, NoEstimate):
        why = "no A/A run was given" if calibration is None else "there is no estimate"
        return Check(
            name="noise_as_calibrated",
            number=None,
            threshold=None,
            passed=True,
            detail=f"not checked: {why}",
            severity=Severity.WARNING,
        )
    # Of single blocks: the long-run variance of a few blocks is itself too noisy to compare.
    found = float(
        plain_variance(primary.in_run_sd**2, primary.autocorrelation)
        / plain_variance(calibration.block_variance, calibration.autocorrelation)
    )
    threshold = noise_threshold(primary.blocks, calibration.blocks)
    return Check(
        name="noise_as_calibrated",
        number=found,
        threshold=threshold,
        passed=found <= threshold,
        detail="the noise is unlike its A/A run's: calibrate again, with longer blocks"
        if found > threshold
        else "a block's variance over the A/A run's",
    )


def noise_threshold(blocks: int, aa_blocks: int) -> float:
    """The ratio of variances above which noise differs: three, and more than chance alone gives
    so few blocks once in a thousand looks.
    """
    return max(3.0, float(fdtri(blocks - 1, max(1, aa_blocks - 1), 1 - RARE)))


def _drift_check(primary: Estimate | NoEstimate) -> Check:
    """Whether the second half says the same as the first: one arm that slows down is no answer."""
    name, threshold = "no_drift", float(-ndtri(RARE / 2))
    values = [p.theta for p in _series(primary) if p.theta is not None]
    if isinstance(primary, NoEstimate) or len(values) < DRIFT_BLOCKS:
        return Check(
            name=name,
            number=None,
            threshold=threshold,
            passed=True,
            detail=f"not checked before {DRIFT_BLOCKS} blocks",
            severity=Severity.WARNING,
        )
    half = len(values) // 2
    mean_log_ratio = fmean(values[-half:]) - fmean(values[:half])
    error = primary.block_sd * math.sqrt(2 / half)
    found = abs(mean_log_ratio) / error if error > 0 else 0.0
    return Check(
        name=name,
        number=found,
        threshold=threshold,
        passed=found <= threshold,
        detail=f"one arm drifts: its second half differs from its first by {mean_log_ratio:+.2%}"
        if found > threshold
        else "how far the run's halves lie apart, in standard errors",
    )


def _series(primary: Estimate | NoEstimate) -> tuple[SeriesPoint, ...]:
    return primary.series if isinstance(primary, Estimate) else ()


def _listed(name: str, faults: tuple[str, ...], bad: str, good: str) -> Check:
    return Check(
        name=name,
        number=float(len(faults)),
        threshold=0.0,
        passed=not faults,
        detail=f"{bad}: {', '.join(faults)}" if faults else good,
    )


def _void_detail(validity: Validity) -> str:
    if validity.void_share is None:
        return "no window was expected yet"
    text = f"{validity.void_share:.1%} of the windows are void"
    return f"{text} ({'; '.join(validity.void_reasons[:3])})" if validity.void_reasons else text


def quality_check(quality: QualityFinding | NoQuality) -> Check:
    """Whether the answers were shown to be the same; no data does not pass."""
    if isinstance(quality, NoQuality):
        return Check(
            name="same_answers", number=None, threshold=None, passed=False, detail=quality.reason
        )
    return Check(
        name="same_answers",
        number=quality.number,
        threshold=quality.allowed,
        passed=quality.outcome is QualityOutcome.PASSED,
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
            number=lower_end(policy, found) if found else None,
            threshold=policy.log_margin,
            passed=found is not None and lower_end(policy, found) > policy.log_margin,
            detail=lack or _gain_detail(policy, found, name),
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
        _cells_check(policy, primary),
    )


def lower_end(policy: Policy, found: Estimate) -> float:
    """What must exceed the margin."""
    return found.lo if policy.uncovered is Uncovered.AS_COVERED else found.lower_bound_all_traffic


def undecided(policy: Policy, found: Estimate) -> bool:
    """Whether neither a gain above the margin nor the lack of one is shown yet."""
    return lower_end(policy, found) <= policy.log_margin <= found.hi


def _gain_detail(policy: Policy, found: Estimate | None, name: str) -> str:
    told = f"lower end of the {name} rate's log ratio"
    if found is not None and lower_end(policy, found) != found.lo:
        told += f", {1 - found.covered_weight:.1%} of the busy time that lack data taken as no gain"
    return f"{told}, must exceed the margin"


def planned_batches_check(
    settings: EstimatorSettings, primary: Estimate | NoEstimate
) -> tuple[Check, ...]:
    """Whether every planned batch size has been seen often enough in both arms."""
    if settings.batches is None:
        return ()
    cells = primary.cells if isinstance(primary, Estimate) else ()
    lacking = sorted(set(settings.batches) - {cell.cell.bucket for cell in cells})
    return (
        Check(
            name="planned_batches",
            number=float(len(settings.batches) - len(lacking)),
            threshold=float(len(settings.batches)),
            passed=not lacking,
            detail=f"planned and not covered: batch {', '.join(map(str, lacking))}"
            if lacking
            else "every planned batch size is covered",
        ),
    )


def known_check(validity: Validity) -> Check:
    """Whether both arms say what they are; that nothing is known to differ is not sameness."""
    return _listed(
        "configuration_known",
        validity.config_unknown,
        "the arms' configuration is not known",
        "every pod states its configuration",
    )


def declared_checks(validity: Validity) -> tuple[Check, ...]:
    """What rests on the operator's word alone; a warning each."""
    return tuple(
        Check(
            name="design",
            number=None,
            threshold=None,
            passed=False,
            detail=detail,
            severity=Severity.WARNING,
        )
        for detail in validity.declared
    )


def mixed_check(policy: Policy, mixed: Estimate | NoEstimate) -> Check:
    """Whether batches with prefill are clearly slower; a gain of them earns nothing."""
    name, threshold = "mixed_no_harm", math.log1p(-policy.cell_harm)
    if isinstance(mixed, NoEstimate):
        return Check(
            name=name,
            number=None,
            threshold=threshold,
            passed=True,
            detail=f"not checked: batches with prefill: {mixed.reason}",
            severity=Severity.WARNING,
        )
    slower = mixed.hi < threshold
    return Check(
        name=name,
        number=mixed.hi,
        threshold=threshold,
        passed=not slower,
        detail=f"clearly slower: batches with prefill ({math.expm1(mixed.theta):+.1%})"
        if slower
        else "upper end of the log ratio of batches with prefill, must not lie below",
    )


def _cells_check(policy: Policy, primary: Estimate | NoEstimate) -> Check:
    """No cell that matters may be clearly slower, however good the whole is."""
    found = primary.cells if isinstance(primary, Estimate) else ()
    matter = [cell for cell in found if cell.weight >= policy.cell_weight]
    threshold = math.log1p(-policy.cell_harm)
    worst = min(matter, key=lambda cell: cell.hi, default=None)
    slower = [cell for cell in matter if cell.hi < threshold]
    return Check(
        name="every_cell",
        number=worst.hi if worst and math.isfinite(worst.hi) else None,
        threshold=threshold,
        passed=isinstance(primary, Estimate) and not slower,
        detail="clearly slower: " + ", ".join(f"{c.cell} ({c.theta:+.1%})" for c in slower)
        if slower
        else "the lowest upper end of a cell's log ratio, must not lie below",
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
        why = "there is no kernel estimate"
        if byte_bound is None:
            why = "not every arm exports moe_serve_kernel_bytes_total"
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
