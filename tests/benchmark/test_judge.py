import math
from dataclasses import replace

import pytest

from moe_serve.analysis.policy import OnNoGain, Policy
from moe_serve.analysis.validity import EvidenceGrade
from moe_serve.analysis.verdict import Verdict
from moe_serve.benchmark.judge import judge_pairs
from moe_serve.benchmark.judgement import BenchmarkJudgement
from moe_serve.benchmark.protocol import Rules, spread
from moe_serve.benchmark.results import BenchmarkArm, BenchmarkRun, Latencies
from moe_serve.quality.finding import QualityFinding, finding
from moe_serve.quality.result import NoQuality, QualityOutcome
from tests.benchmark.runs import CELLS, OTHER, SAME, changed, pairs
from tests.testing.probed import probed


def judged(
    runs: list[BenchmarkRun],
    rules: Rules | None = None,
    quality: QualityFinding | NoQuality = SAME,
) -> BenchmarkJudgement:
    return judge_pairs(runs, rules or Rules(), quality)


def swapped(runs: list[BenchmarkRun]) -> list[BenchmarkRun]:
    other = {BenchmarkArm.STABLE: BenchmarkArm.CANARY, BenchmarkArm.CANARY: BenchmarkArm.STABLE}
    return [replace(run, arm=other[run.arm]) for run in runs]


def test_a_clear_gain_with_the_same_answers_is_promoted() -> None:
    found = judged(pairs(1.08))
    assert found.verdict is Verdict.PROMOTE, found.reason
    assert found.speed is not None and found.speed.overall.ratio == pytest.approx(1.08, abs=0.01)
    assert found.claim.inside
    assert found.evidence is EvidenceGrade.PROBE
    assert all(check.passed for check in found.checks)


def test_swapping_the_arms_negates_the_estimate_exactly() -> None:
    one, other = judged(pairs(1.05)).speed, judged(swapped(pairs(1.05))).speed
    assert one is not None and other is not None
    assert one.overall.theta == -other.overall.theta


def test_without_a_comparison_of_answers_nothing_is_promoted() -> None:
    found = judged(pairs(1.08), quality=NoQuality(reason="not asked"))
    assert found.verdict is Verdict.KEEP_GOING
    assert "not shown to be the same: not asked" in found.reason


def test_answers_within_a_wider_bound_promote_nothing() -> None:
    strict = Rules(policy=Policy(quality_epsilon_nats=0.002))
    found = judged(pairs(1.08), strict)
    assert found.verdict is Verdict.KEEP_GOING and "0.005 allowed" in found.reason


def test_other_answers_roll_back_however_fast_they_come() -> None:
    assert judged(pairs(1.5), quality=OTHER).verdict is Verdict.ROLLBACK
    # Answers are named even where the pairs are worth nothing.
    holes = judged(pairs(1.5)[1:], quality=OTHER)
    assert holes.verdict is Verdict.INVALID and "the answers differ" in holes.reason


def test_harm_and_no_gain_roll_back() -> None:
    assert "harm: slower" in judged(pairs(0.95)).reason
    none = judged(pairs(1.0))
    assert none.verdict is Verdict.ROLLBACK and "no gain" in none.reason
    person = Rules(policy=Policy(on_no_gain=OnNoGain.KEEP_GOING))
    assert judged(pairs(1.0), person).verdict is Verdict.KEEP_GOING


def test_speed_before_all_planned_pairs_decides_nothing() -> None:
    few = [run for run in pairs(1.2) if run.pair is not None and run.pair <= 3]
    found = judged(few)
    assert found.verdict is Verdict.KEEP_GOING
    assert "3 of 5 planned pairs" in found.reason
    assert judged(few, Rules(pairs=3)).verdict is Verdict.PROMOTE


def test_a_gain_that_is_not_shown_keeps_going() -> None:
    found = judged(pairs(1.05, noise=0.08))
    assert found.verdict is Verdict.KEEP_GOING
    assert "not shown to exceed the margin" in found.reason
    assert "either side" in found.reason


def test_worse_latency_rolls_back_missing_latency_keeps_going() -> None:
    slow = judged(pairs(1.08, slower=1.2))
    assert slow.verdict is Verdict.ROLLBACK and "harm: ttft_p99" in slow.reason
    blind = [replace(run, latencies=Latencies()) for run in pairs(1.08)]
    found = judged(blind)
    assert found.verdict is Verdict.KEEP_GOING and "no ttft_p99" in found.reason


def test_results_without_gaps_are_judged_by_time_per_token() -> None:
    runs = [
        replace(
            run,
            latencies=Latencies(ttft_p99=run.latencies.ttft_p99, tpot_p99=run.latencies.itl_p99),
        )
        for run in pairs(1.08)
    ]
    found = judged(runs)
    assert found.verdict is Verdict.PROMOTE
    assert "tpot_p99" in {check.name for check in found.checks}


def test_failed_requests_of_the_canary_roll_back_at_once() -> None:
    few = changed(pairs(1.08)[:12], BenchmarkArm.CANARY, failed=3)
    assert judged(few).verdict is Verdict.ROLLBACK
    both = changed(
        changed(pairs(1.08), BenchmarkArm.CANARY, failed=3), BenchmarkArm.STABLE, failed=1
    )
    assert judged(both).verdict is Verdict.INVALID
    unknown = changed(pairs(1.08), BenchmarkArm.CANARY, failed=None)
    assert judged(unknown).verdict is Verdict.KEEP_GOING


def test_one_slow_cell_forbids_a_promotion() -> None:
    gains = {CELLS[0]: 0.9}
    found = judged(pairs(gains))
    assert found.verdict is Verdict.KEEP_GOING
    assert f"clearly slower: {CELLS[0]}" in found.reason


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([run for run in pairs() if run.arm is BenchmarkArm.STABLE], "no run of arm canary"),
        (pairs()[1:], "unequal cells"),
        ([*pairs(), pairs()[0]], "more than one run of"),
        (changed(pairs(), BenchmarkArm.CANARY, output_tokens=1500), "unequal numbers of tokens"),
        (changed(pairs(), BenchmarkArm.CANARY, pair=None), "only some runs have a pair"),
        (
            [replace(run, started=1.0 + (run.arm is BenchmarkArm.CANARY)) for run in pairs()],
            "not interleaved",
        ),
    ],
    ids=["one arm", "hole", "twice", "other work", "unlabelled", "one arm after the other"],
)
def test_runs_that_are_no_pairs_are_invalid(runs: list[BenchmarkRun], says: str) -> None:
    found = judged(runs)
    assert found.verdict is Verdict.INVALID
    assert says in found.reason


def test_an_order_that_never_changes_forbids_a_promotion() -> None:
    always = [
        replace(run, started=1000.0 * (run.pair or 0) + (run.arm is BenchmarkArm.CANARY))
        for run in pairs(1.08)
    ]
    found = judged(always)
    assert found.verdict is Verdict.KEEP_GOING and "alternate which arm begins" in found.reason


def test_runs_without_times_promote_nothing() -> None:
    found = judged([replace(run, started=None) for run in pairs(1.08)])
    assert found.verdict is Verdict.KEEP_GOING
    assert "the runs have no times" in found.reason
    assert not next(check for check in found.checks if check.name == "order").passed


def test_copies_of_one_pair_are_no_pairs_and_are_named() -> None:
    one = [run for run in pairs(1.08) if run.pair == 1]
    copies = [
        replace(
            run,
            pair=pair,
            source=f"{run.arm}-p{pair}.json",
            started=100.0 * pair + (run.started or 0),
        )
        for pair in range(1, 6)
        for run in one
    ]
    found = judged(copies)
    assert found.verdict is Verdict.INVALID
    assert "the same figures twice: stable-p2.json (as stable-p1.json)" in found.reason


def test_a_client_that_is_busy_all_the_time_forbids_a_promotion() -> None:
    found = judged(changed(pairs(1.08), BenchmarkArm.STABLE, client_busy=0.95))
    assert found.verdict is Verdict.KEEP_GOING and "may have limited the rate" in found.reason


def test_single_unpaired_runs_are_graded_so_and_decide_nothing() -> None:
    single = [replace(run, pair=None, started=None) for run in pairs(1.3, count=1)]
    found = judged(single, Rules(pairs=1))
    assert found.verdict is Verdict.KEEP_GOING
    assert found.evidence is EvidenceGrade.SINGLE_RUNS
    assert "one unpaired run each" in found.reason
    assert found.to_json()["lo"] is None
    assert found.speed is not None and found.speed.across_cells.lo is not None


def test_false_promotions_at_the_margin_are_rare() -> None:
    promoted = sum(
        judged(pairs(1.03, noise=0.02, seed=seed)).verdict is Verdict.PROMOTE for seed in range(400)
    )
    assert promoted <= 20, "more than 5 %"


def test_false_rollbacks_of_a_true_gain_are_rare() -> None:
    rolled = sum(
        judged(pairs(1.08, noise=0.03, seed=seed)).verdict is Verdict.ROLLBACK
        for seed in range(400)
    )
    assert rolled <= 8, "more than 2 %"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    import random

    source = random.Random(1)
    covered = 0
    for _ in range(2000):
        found = spread([source.gauss(0.05, 0.02) for _ in range(5)], 0.025)
        assert found.lo is not None and found.hi is not None
        covered += found.lo <= 0.05 <= found.hi
    assert 0.935 <= covered / 2000 <= 0.965


def test_all_numbers_survive_json() -> None:
    import json

    for runs in (pairs(), pairs(count=1), pairs()[1:]):
        text = json.dumps(judged(runs).to_json(), allow_nan=False)
        assert math.isfinite(json.loads(text)["planned_pairs"])


def test_answers_of_unknown_servers_promote_nothing() -> None:
    unknown = finding(probed(QualityOutcome.PASSED, known=(None, None)))
    found = judge_pairs(pairs(1.08), Rules(), unknown)
    assert found.verdict is not Verdict.PROMOTE
    assert "not known to be of these pods" in found.reason
