"""A time without a zone orders the runs of its own clock, and is compared with no other."""

from dataclasses import replace
from pathlib import Path

import pytest

from moe_serve.benchmark.judge import judge_pairs
from moe_serve.benchmark.pairing import PairedRuns, paired
from moe_serve.benchmark.protocol import Rules
from moe_serve.benchmark.results import BenchmarkArm, BenchmarkRun, Clock
from tests.benchmark.runs import SAME, pairs
from tests.benchmark.test_reading import GUIDELLM, INFERENCEX, VLLM, read


def test_each_format_names_the_clock_of_its_time(tmp_path: Path) -> None:
    local = read(tmp_path, "canary-1k1k-c4-tp2-p3.json", VLLM)
    epoch = read(tmp_path, "canary-1k1k-tp2-p3.json", GUIDELLM)
    own = read(tmp_path, "canary-p1.json", {**INFERENCEX, "started": 1777000000.0})
    assert (local.clock, epoch.clock, own.clock) == (Clock.LOCAL_END, Clock.EPOCH, Clock.EPOCH)


def layout(runs: list[BenchmarkRun]) -> PairedRuns:
    found = paired(runs)
    assert isinstance(found, PairedRuns)
    return found


def test_runs_of_one_local_clock_are_ordered() -> None:
    local = [replace(run, clock=Clock.LOCAL_END) for run in pairs(count=2)]
    assert layout(local).first_arms() == (BenchmarkArm.STABLE, BenchmarkArm.CANARY)


@pytest.mark.parametrize("arm", BenchmarkArm)
def test_pair_of_two_clocks_has_no_order_and_is_not_promoted(arm: BenchmarkArm) -> None:
    mixed = [
        replace(run, clock=Clock.LOCAL_END) if run.arm is arm else run for run in pairs(count=5)
    ]
    assert layout(mixed).first_arms() is None
    found = judge_pairs(mixed, Rules(), SAME)
    order = next(check for check in found.checks if check.name == "order")
    assert (order.number, order.passed) == (None, False)
    assert found.verdict.value == "KEEP_GOING"


@pytest.mark.parametrize("hours", [-12, 12])
def test_arms_of_two_clocks_are_not_called_sequential(hours: int) -> None:
    """The zone that is not known moves all times of an arm; no fault may follow from it."""
    mixed = [
        replace(run, clock=Clock.LOCAL_END, started=(run.started or 0) + hours * 3600)
        if run.arm is BenchmarkArm.CANARY
        else run
        for run in pairs(count=5)
    ]
    assert not layout(mixed).one_arm_at_a_time()
