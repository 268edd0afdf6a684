"""The verdict over interleaved pairs of benchmark runs, by one analysis of all pairs."""

from collections.abc import Sequence

from moe_serve.analysis.checks import quality_check
from moe_serve.analysis.policy import OnNoGain
from moe_serve.analysis.validity import EvidenceGrade
from moe_serve.analysis.verdict import Check, Verdict
from moe_serve.benchmark import guards
from moe_serve.benchmark.judgement import (
    BenchmarkCellResult,
    BenchmarkJudgement,
    ShapeResult,
    Speed,
    claim_of,
)
from moe_serve.benchmark.pairing import Floats, PairedRuns, Unpaired, paired
from moe_serve.benchmark.protocol import PAIRS, Rules, RunVariation, spread
from moe_serve.benchmark.results import BenchmarkRun
from moe_serve.quality.finding import QualityFinding, accept_if_bound, accept_if_policy
from moe_serve.quality.result import NoQuality, QualityOutcome


def judge_pairs(
    runs: Sequence[BenchmarkRun], rules: Rules, quality: QualityFinding | NoQuality
) -> BenchmarkJudgement:
    """The verdict on the canary with all its checks.

    Per pair, the log ratios of all cells are averaged with equal weights, as published claims are;
    the interval is Student's t over pairs. Swapping the arms negates theta exactly.
    """
    quality = accept_if_policy(rules.policy.quality_policy, accept_if_bound(quality))
    layout = paired(runs)
    planned = _planned(runs, rules)
    if isinstance(layout, Unpaired):
        faults = list(layout.faults)
        if _failed(quality):
            faults.append(f"the answers differ: {quality.reason}")
        return BenchmarkJudgement(
            verdict=Verdict.INVALID,
            reason="; ".join(faults),
            speed=None,
            claim=claim_of(rules.claim, None),
            planned_pairs=planned,
            evidence=EvidenceGrade.SINGLE_RUNS,
            quality=quality.to_json(),
            checks=(_layout_check(layout.faults),),
        )
    ratios = layout.log_ratios(lambda run: run.tput_per_gpu)
    assert ratios is not None, "every run has a throughput"  # by its type
    speed = _speed(layout, ratios, rules)
    held = (*guards.failed_requests(layout), *guards.latencies(layout, rules))
    checks = (
        *_speed_checks(speed, rules, planned, labelled=layout.labelled),
        guards.cells_not_worse(layout, ratios, rules),
        guards.order(layout),
        guards.client_pace(layout, rules),
    )
    verdict, reason = _decide(speed, rules, quality, held, checks)
    return BenchmarkJudgement(
        verdict=verdict,
        reason=reason,
        speed=speed,
        claim=claim_of(rules.claim, speed),
        planned_pairs=planned,
        evidence=EvidenceGrade.PROBE if speed.overall.count > 1 else EvidenceGrade.SINGLE_RUNS,
        quality=quality.to_json(),
        checks=(
            _layout_check(()),
            *(guard.check for guard in held),
            quality_check(quality),
            *checks,
        ),
    )


def _planned(runs: Sequence[BenchmarkRun], rules: Rules) -> int:
    """The planned number of pairs: the rules', else the results', else the protocol's."""
    declared = [run.planned_pairs for run in runs if run.planned_pairs is not None]
    return rules.pairs or max(declared, default=PAIRS)


def _layout_check(faults: tuple[str, ...]) -> Check:
    return Check(
        name="paired",
        number=float(len(faults)),
        threshold=0.0,
        passed=not faults,
        detail="; ".join(faults) or "every cell is there once for each arm and pair",
    )


def _speed(layout: PairedRuns, ratios: Floats, rules: Rules) -> Speed:
    def over(found: Floats) -> RunVariation:
        return spread([float(value) for value in found], rules.side)

    shapes = sorted({cell.shape for cell in layout.cells})
    return Speed(
        overall=over(ratios.mean(axis=1)),
        shapes=tuple(
            ShapeResult(
                shape=shape,
                spread=over(ratios[:, [cell.shape == shape for cell in layout.cells]].mean(axis=1)),
            )
            for shape in shapes
        ),
        cells=tuple(
            BenchmarkCellResult(cell=cell, spread=over(ratios[:, at]))
            for at, cell in enumerate(layout.cells)
        ),
        across_cells=over(ratios.mean(axis=0)),
    )


def _speed_checks(
    speed: Speed, rules: Rules, planned: int, *, labelled: bool
) -> tuple[Check, Check, Check]:
    whole, margin = speed.overall, rules.policy.margin
    half = None if whole.lo is None or whole.hi is None else (whole.hi - whole.lo) / 2
    there = f"{whole.count} of {planned} planned pairs are there, and the analysis is at the end"
    if not labelled:
        there = (
            "one unpaired run each: how far a run would repeat is not known, so the interval is "
            f"over the {len(speed.cells)} cells only and decides nothing; {planned} interleaved "
            "pairs would"
        )
    gain = whole.lo is not None and whole.lo > rules.policy.log_margin
    return (
        Check(
            name="pairs",
            number=float(whole.count if labelled else 0),
            threshold=float(planned),
            passed=labelled and whole.count >= planned,
            detail=there
            if not labelled or whole.count < planned
            else "all planned pairs are there",
        ),
        Check(
            name="gain",
            number=whole.lo,
            threshold=rules.policy.log_margin,
            passed=gain,
            detail=f"the gain is shown to exceed the margin of {margin:+.1%}"
            if gain
            else f"the gain is not shown to exceed the margin of {margin:+.1%}: more pairs, in a "
            "new run that plans them, narrow the interval",
        ),
        Check(
            name="precision",
            number=half,
            threshold=rules.max_half_width,
            passed=half is not None and half <= rules.max_half_width,
            detail="no interval over pairs"
            if half is None
            else f"the interval reaches {half:.1%} to either side, {rules.max_half_width:.1%} are "
            "allowed",
        ),
    )


def _decide(
    speed: Speed,
    rules: Rules,
    quality: QualityFinding | NoQuality,
    held: tuple[guards.BenchmarkGuard, ...],
    checks: tuple[Check, ...],
) -> tuple[Verdict, str]:
    shown = speed.text()
    if invalid := [guard.check.detail for guard in held if guard.invalid]:
        answers = [f"the answers differ: {quality.reason}"] if _failed(quality) else []
        return Verdict.INVALID, "; ".join([*invalid, *answers, shown])
    if _failed(quality):
        return Verdict.ROLLBACK, f"the answers differ: {quality.reason}; {shown}"
    pairs = next(check for check in checks if check.name == "pairs")
    # Failed requests are no noise, so they need not wait for all pairs.
    if harm := [guard.check.detail for guard in held if guard.harm and (pairs.passed or guard.now)]:
        return Verdict.ROLLBACK, "; ".join([*harm, shown])
    if not pairs.passed:
        return Verdict.KEEP_GOING, "; ".join([shown, pairs.detail, *_answers_wanting(quality)])
    return _on_speed(speed, rules, quality, held, checks)


def _on_speed(
    speed: Speed,
    rules: Rules,
    quality: QualityFinding | NoQuality,
    held: tuple[guards.BenchmarkGuard, ...],
    checks: tuple[Check, ...],
) -> tuple[Verdict, str]:
    shown, policy = speed.text(), rules.policy
    upper = speed.overall.high(rules.rollback_side)
    if upper is not None and upper < policy.log_harm:
        return Verdict.ROLLBACK, f"harm: slower by more than {policy.harm:.1%}; {shown}"
    if upper is not None and upper < policy.log_margin:
        reason = f"no gain: shown to be below the margin of {policy.margin:+.1%}; {shown}"
        if policy.on_no_gain is OnNoGain.ROLLBACK:
            return Verdict.ROLLBACK, reason
        return Verdict.KEEP_GOING, f"{reason}; the policy leaves this to a person"
    wanting = [
        check.detail for check in (*(guard.check for guard in held), *checks) if not check.passed
    ]
    wanting += _answers_wanting(quality)
    if not wanting:
        return Verdict.PROMOTE, f"faster and the same answers: {shown}"
    return Verdict.KEEP_GOING, "; ".join([shown, *wanting])


def _failed(quality: QualityFinding | NoQuality) -> bool:
    return isinstance(quality, QualityFinding) and quality.outcome is QualityOutcome.FAILED


def _answers_wanting(quality: QualityFinding | NoQuality) -> list[str]:
    if isinstance(quality, QualityFinding) and quality.outcome is QualityOutcome.PASSED:
        return []
    return [f"the answers are not shown to be the same: {quality.reason}"]
