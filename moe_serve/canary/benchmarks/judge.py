"""The decision over interleaved pairs of benchmark runs: one look, when all pairs are there."""

import math
from collections.abc import Sequence

from moe_serve.canary.analysis.policy import OnNoGain
from moe_serve.canary.analysis.verdict import Check, Verdict
from moe_serve.canary.benchmarks import guards
from moe_serve.canary.benchmarks.judgement import (
    BenchmarkJudgement,
    CellResult,
    ShapeResult,
    Speed,
    claim_of,
)
from moe_serve.canary.benchmarks.pairing import Floats, Paired, Unpaired, paired
from moe_serve.canary.benchmarks.results import BenchmarkRun
from moe_serve.canary.benchmarks.rules import PAIRS, Rules
from moe_serve.canary.benchmarks.spread import Spread, spread
from moe_serve.canary.quality.result import NoQuality, Outcome, QualityResult


def judge_pairs(
    runs: Sequence[BenchmarkRun], rules: Rules, quality: QualityResult | NoQuality
) -> BenchmarkJudgement:
    """What the runs say of the canary, with every check behind it.

    Per pair, the log ratios of all cells are averaged (equal weights, as published claims do);
    the interval is Student's t over pairs. Swapping the arms negates theta exactly.
    """
    layout = paired(runs)
    planned = _planned(runs, rules)
    if isinstance(layout, Unpaired):
        return BenchmarkJudgement(
            verdict=Verdict.INVALID,
            reason="; ".join(layout.faults),
            speed=None,
            claim=claim_of(rules.claim, None),
            planned_pairs=planned,
            quality=quality.to_json(),
            checks=(_layout_check(layout.faults),),
        )
    ratios = layout.log_ratios(lambda run: run.tput_per_gpu)
    assert ratios is not None, "every run has a throughput"  # the type says so
    speed = _speed(layout, ratios, rules)
    requests = guards.failed_requests(layout)
    latencies = guards.latencies(layout, rules)
    gain = _speed_checks(speed, rules, planned)
    cells = guards.cells_not_worse(layout, ratios, rules)
    verdict, reason = _decide(speed, rules, quality, planned, requests, latencies, (*gain, cells))
    return BenchmarkJudgement(
        verdict=verdict,
        reason=reason,
        speed=speed,
        claim=claim_of(rules.claim, speed.overall),
        planned_pairs=planned,
        quality=quality.to_json(),
        checks=(
            _layout_check(()),
            *(guard.check for guard in (*requests, *latencies)),
            guards.same_answers(quality),
            *gain,
            cells,
        ),
    )


def _planned(runs: Sequence[BenchmarkRun], rules: Rules) -> int:
    """The horizon: as ruled, else as the results declare it, else the protocol's."""
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


def _speed(layout: Paired, ratios: Floats, rules: Rules) -> Speed:
    confidence = rules.policy.confidence
    shapes = sorted({cell.shape for cell in layout.cells})
    return Speed(
        overall=_over(ratios, confidence),
        shapes=tuple(
            ShapeResult(
                shape=shape,
                spread=_over(ratios[:, [cell.shape == shape for cell in layout.cells]], confidence),
            )
            for shape in shapes
        ),
        cells=tuple(
            CellResult(cell=cell, spread=spread([float(v) for v in ratios[:, i]], confidence))
            for i, cell in enumerate(layout.cells)
        ),
        across_cells=spread([float(v) for v in ratios.mean(axis=0)], confidence),
    )


def _over(ratios: Floats, confidence: float) -> Spread:
    return spread([float(row) for row in ratios.mean(axis=1)], confidence)


def _speed_checks(speed: Speed, rules: Rules, planned: int) -> tuple[Check, ...]:
    whole, policy = speed.overall, rules.policy
    half = whole.half_width
    return (
        Check(
            name="pairs",
            number=float(whole.count),
            threshold=float(planned),
            passed=whole.count >= planned,
            detail="pairs that are there, and those that were planned",
        ),
        Check(
            name="gain",
            number=whole.lo,
            threshold=policy.log_margin,
            passed=whole.lo is not None and whole.lo > policy.log_margin,
            detail="lower end of the log ratio of tokens/s per GPU, must exceed the margin",
        ),
        Check(
            name="precision",
            number=half,
            threshold=rules.max_half_width,
            passed=half is not None and half <= rules.max_half_width,
            detail="half the interval, log units; wider ones need more pairs",
        ),
    )


def _decide(
    speed: Speed,
    rules: Rules,
    quality: QualityResult | NoQuality,
    planned: int,
    requests: tuple[guards.Guard, ...],
    latencies: tuple[guards.Guard, ...],
    gain: tuple[Check, ...],
) -> tuple[Verdict, str]:
    shown = speed.text()
    if invalid := [guard.check.detail for guard in requests if guard.invalid]:
        return Verdict.INVALID, "; ".join([*invalid, shown])
    if isinstance(quality, QualityResult) and quality.outcome is Outcome.FAILED:
        return Verdict.ROLLBACK, f"the answers differ: {quality.reason}; {shown}"
    if harm := [guard.check.detail for guard in requests if guard.harm]:
        return Verdict.ROLLBACK, "; ".join([*harm, shown])
    if speed.overall.count < planned:
        return Verdict.KEEP_GOING, "; ".join(
            [
                f"{speed.overall.count} of {planned} planned pairs are there, and the look is at "
                "the end",
                *_answers_wanting(quality),
                shown,
            ]
        )
    if harm := [guard.check.detail for guard in latencies if guard.harm]:
        return Verdict.ROLLBACK, "; ".join([*harm, shown])
    return _on_speed(speed, rules, quality, (*requests, *latencies), gain)


def _on_speed(
    speed: Speed,
    rules: Rules,
    quality: QualityResult | NoQuality,
    held: tuple[guards.Guard, ...],
    gain: tuple[Check, ...],
) -> tuple[Verdict, str]:
    shown, policy, upper = speed.text(), rules.policy, speed.overall.hi
    if upper is not None and upper < policy.log_harm:
        return Verdict.ROLLBACK, f"harm: slower by more than {policy.harm:.1%}; {shown}"
    if upper is not None and upper < policy.log_margin:
        reason = f"no gain: shown to be below the margin of {policy.margin:+.1%}; {shown}"
        if policy.on_no_gain is OnNoGain.ROLLBACK:
            return Verdict.ROLLBACK, reason
        return Verdict.KEEP_GOING, f"{reason}; the policy leaves this to a person"
    wanting = [check for check in (*(guard.check for guard in held), *gain) if not check.passed]
    same = _answers_wanting(quality)
    if not wanting and not same:
        return Verdict.PROMOTE, f"faster and the same answers: {shown}"
    return Verdict.KEEP_GOING, "; ".join(
        [*(f"{check.name}: {_lack(check)}" for check in wanting), *same, shown]
    )


def _answers_wanting(quality: QualityResult | NoQuality) -> list[str]:
    if isinstance(quality, QualityResult) and quality.outcome is Outcome.PASSED:
        return []
    return [
        "the answers are not shown to be the same, and without that nothing is promoted: "
        f"{quality.reason}"
    ]


def _lack(check: Check) -> str:
    if check.number is None or check.threshold is None:
        return check.detail
    return f"{check.detail} ({_percent(check.number)} against {_percent(check.threshold)})"


def _percent(log_ratio: float) -> str:
    return f"{math.expm1(log_ratio):+.1%}"
