import json
from collections.abc import Mapping

import pytest

from moe_serve.errors import UsageError
from moe_serve.quality.counters import Counters, Drift, counters, drift, grown
from moe_serve.quality.result import NoQuality, QualityOutcome


def arm(
    *, stop: float = 900, length: float = 100, corrupted: float | None = 0, mean: float = 60
) -> Counters:
    requests = stop + length
    return Counters(
        corrupted=corrupted,
        finished={"stop": stop, "length": length},
        lengths={50.0: requests / 2, 100.0: requests / 2, float("inf"): 0.0},
        tokens=mean * requests,
    )


def drifted(canary: Counters, stable: Counters | None = None) -> Drift:
    made = drift(stable or arm(), canary)
    assert isinstance(made, Drift)
    return made


def test_samples_of_several_engines_are_one_server() -> None:
    samples: list[tuple[str, Mapping[str, str], float]] = []
    for engine in ("0", "1"):
        labels = {"engine": engine}
        samples += [
            ("vllm:corrupted_requests_total", labels, 1.0),
            ("vllm:request_success_total", {**labels, "finished_reason": "stop"}, 5.0),
            ("vllm:request_generation_tokens_bucket", {**labels, "le": "10.0"}, 4.0),
            ("vllm:request_generation_tokens_bucket", {**labels, "le": "+Inf"}, 5.0),
            ("vllm:request_generation_tokens_sum", labels, 70.0),
        ]
    found = counters(samples)
    assert found is not None
    assert (found.corrupted, found.requests, found.tokens) == (2, 10, 140)
    assert found.lengths == {10.0: 8.0, float("inf"): 2.0}


def test_no_metrics_are_no_quality_and_not_zero() -> None:
    assert counters([("up", {}, 1.0)]) is None
    made = drift(arm(), None)
    assert isinstance(made, NoQuality)
    assert "no counters of canary" in made.reason


def test_a_restart_in_between_is_no_data() -> None:
    assert grown(arm(stop=900), arm(stop=10)) is None
    found = grown(arm(stop=100, length=10), arm(stop=900, length=100))
    assert found is not None and found.finished == {"stop": 800, "length": 90}


def test_one_corrupted_request_fails() -> None:
    made = drifted(arm(corrupted=1))
    assert made.outcome is QualityOutcome.FAILED and "1 corrupted" in made.reason


def test_a_server_that_does_not_count_corruption_is_said_so() -> None:
    made = drifted(arm(corrupted=None))
    assert made.outcome is QualityOutcome.PASSED and "not counted there" in made.reason


def test_other_finish_reasons_fail() -> None:
    made = drifted(arm(stop=800, length=200))
    assert made.outcome is QualityOutcome.FAILED and "end for other reasons" in made.reason


def test_longer_answers_fail() -> None:
    made = drifted(arm(mean=75))
    assert made.outcome is QualityOutcome.FAILED and "75.0 tokens" in made.reason


def test_like_arms_pass_and_few_requests_are_undecided() -> None:
    assert drifted(arm(stop=890, length=110)).outcome is QualityOutcome.PASSED
    made = drifted(arm(stop=20, length=1))
    assert made.outcome is QualityOutcome.UNDECIDED and "21 requests" in made.reason


def test_an_arm_without_requests_has_no_mean() -> None:
    idle = Counters(corrupted=0, finished={"stop": 0}, lengths={50.0: 0.0}, tokens=0)
    made = drifted(idle, idle)
    assert made.outcome is QualityOutcome.UNDECIDED
    assert json.loads(json.dumps(made.to_json(), allow_nan=False))["mean_tokens"] == [None, None]


def test_a_level_without_meaning_is_refused() -> None:
    with pytest.raises(UsageError, match="alpha"):
        drift(arm(), arm(), alpha=0)
