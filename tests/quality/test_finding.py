"""What the judge takes of a comparison of answers, and what it does not."""

import json
from dataclasses import replace

import pytest

from moe_serve.errors import UsageError
from moe_serve.quality.finding import (
    QualityFinding,
    QualityMode,
    QualityPolicy,
    accept_if_policy,
    finding,
)
from moe_serve.quality.noninferior import TaskPlan, decide
from moe_serve.quality.result import NoQuality, QualityOutcome

PASSED = QualityFinding(
    mode=QualityMode.IDENTICAL,
    outcome=QualityOutcome.PASSED,
    reason="near",
    number=0.001,
    allowed=0.005,
    body={},
)
FAILED = replace(PASSED, outcome=QualityOutcome.FAILED, reason="far", number=None)
IDENTICAL = QualityMode.IDENTICAL


@pytest.mark.parametrize(
    ("found", "allowed", "counts"),
    [
        (PASSED, 0.005, True),
        (PASSED, 0.01, True),
        (PASSED, 0.001, False),
        (FAILED, 0.005, True),
        (FAILED, 0.001, True),
        (FAILED, 0.01, False),
        (replace(PASSED, mode=QualityMode.NON_INFERIOR), 0.005, False),
        (replace(FAILED, mode=QualityMode.NON_INFERIOR), 0.005, False),
    ],
)
def test_an_answer_to_another_question_is_none(
    found: QualityFinding, allowed: float, counts: bool
) -> None:
    kept = accept_if_policy(QualityPolicy(mode=IDENTICAL, allowed=allowed), found)
    assert kept == found if counts else isinstance(kept, NoQuality)
    if not counts:
        assert f"the policy has identical with {allowed:g}" in kept.reason


@pytest.mark.parametrize(
    ("margin", "items", "planned", "counts"),
    [
        (0.02, 1319, 1319, (QualityOutcome.PASSED, QualityOutcome.FAILED)),
        (0.02, None, 250, (QualityOutcome.PASSED, QualityOutcome.FAILED)),
        (0.02, 1319, 250, (QualityOutcome.FAILED,)),
        (0.02, 250, 1319, (QualityOutcome.FAILED,)),
        (0.02, 1319, None, (QualityOutcome.FAILED,)),
        (0.01, 1319, 1319, (QualityOutcome.FAILED,)),
        (0.03, 1319, 1319, (QualityOutcome.PASSED,)),
    ],
)
def test_a_task_passes_with_the_registered_items_and_no_wider_margin(
    margin: float, items: int | None, planned: int | None, counts: tuple[QualityOutcome, ...]
) -> None:
    body = {"alpha": 0.05} if planned is None else {"alpha": 0.05, "planned_items": planned}
    for outcome in (QualityOutcome.PASSED, QualityOutcome.FAILED):
        found = replace(
            PASSED,
            mode=QualityMode.NON_INFERIOR,
            outcome=outcome,
            allowed=0.02,
            number=0.001,
            body=body,
        )
        quality_policy = QualityPolicy(
            mode=QualityMode.NON_INFERIOR, allowed=margin, items=items, alpha=0.05
        )
        kept = accept_if_policy(quality_policy, found)
        assert (kept == found) is (outcome in counts)
        if kept != found:
            assert f"the policy has non-inferior with {margin:g} allowed" in kept.reason


@pytest.mark.parametrize(
    ("told", "registered", "counts"),
    [
        (0.01, 0.01, True),
        (0.001, 0.01, True),
        (0.49, 0.01, False),
        (None, 0.01, False),
        (True, 0.01, False),
        (0.49, None, True),
    ],
)
def test_a_pass_at_a_larger_level_than_registered_is_none(
    told: float | None, registered: float | None, counts: bool
) -> None:
    quality_policy = QualityPolicy(mode=IDENTICAL, allowed=0.005, alpha=registered)
    found = replace(PASSED, body={"alpha": told})
    kept = accept_if_policy(quality_policy, found)
    assert (kept == found) is counts
    if not counts:
        assert kept.reason.endswith("at level 0.01 (passed: near)")
    failed = replace(FAILED, body={"alpha": told})
    assert accept_if_policy(quality_policy, failed) == failed


@pytest.mark.parametrize("outcome", QualityOutcome)
@pytest.mark.parametrize(
    ("margin", "items", "counts"), [(0.02, 400, True), (0.05, 400, False), (0.02, 1319, False)]
)
def test_audits_from_before_levels_were_registered_keep_their_rules(
    outcome: QualityOutcome, margin: float, items: int, counts: bool
) -> None:
    found = replace(
        PASSED, mode=QualityMode.NON_INFERIOR, outcome=outcome, allowed=0.02, number=0.001,
        body={"planned_items": 400},
    )  # fmt: skip
    kept = accept_if_policy(
        QualityPolicy(mode=QualityMode.NON_INFERIOR, allowed=margin, items=items), found
    )
    assert (kept == found) is counts


@pytest.mark.parametrize(
    ("mode", "body", "counts"),
    [
        (IDENTICAL, {"at_any_bound": True}, True),
        (QualityMode.NON_INFERIOR, {"at_any_bound": True}, True),
        (IDENTICAL, {"cells": [{"lower": 0.0}, {"lower": None}, {"lower": 0.03}]}, True),
        (IDENTICAL, {"cells": [{"lower": 0.01}]}, False),
        (QualityMode.NON_INFERIOR, {"cells": [{"lower": 0.03}]}, False),
        (IDENTICAL, {"at_any_bound": "yes", "cells": ["x"], "canary": 1}, False),
    ],
)
def test_a_failure_counts_if_it_is_one_for_the_registered_question_too(
    mode: QualityMode, body: dict[str, object], counts: bool
) -> None:
    found = replace(FAILED, allowed=0.001, body=body)
    assert (
        accept_if_policy(QualityPolicy(mode=mode, allowed=0.02, alpha=0.01), found) == found
    ) is counts


def test_a_loss_of_items_that_is_shown_beyond_a_wider_margin_counts() -> None:
    quality_policy = QualityPolicy(mode=QualityMode.NON_INFERIOR, allowed=0.02, alpha=0.05)
    for upper, counts in ((-0.03, True), (-0.015, False)):
        failed = replace(
            FAILED, mode=QualityMode.NON_INFERIOR, allowed=0.01, body={"canary": {"upper": upper}}
        )
        assert (accept_if_policy(quality_policy, failed) == failed) is counts


def test_a_tasks_result_comes_back_from_its_own_json() -> None:
    gold = {f"{n}": n % 10 != 0 for n in range(400)}
    bad = {f"{n}": n % 2 != 0 for n in range(400)}
    result = decide(TaskPlan(task="t", items=400, margin=0.02), gold, dict(gold), known_bad=bad)
    found = finding(json.loads(json.dumps(result.to_json())))
    assert isinstance(found, QualityFinding)
    assert (found.mode, found.outcome, found.allowed) == (
        QualityMode.NON_INFERIOR,
        QualityOutcome.PASSED,
        0.02,
    )
    assert found.number is not None
    assert found.number < found.allowed
    assert found.to_json() == result.to_json()


def test_no_comparison_stays_none() -> None:
    found = NoQuality(reason="nobody asked")
    assert finding(found.to_json()) == found
    assert accept_if_policy(QualityPolicy(mode=IDENTICAL, allowed=0.005), found) is found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcome": "passed"},
        {**PASSED.to_json(), "mode": "other"},
        {"mode": "identical", "outcome": "passed", "reason": "", "number": "x", "allowed": 1},
        {"mode": "identical", "outcome": "passed", "reason": "", "number": 0, "allowed": "nan"},
        {"mode": "identical", "outcome": "better", "reason": "", "number": 0, "allowed": 1},
        ["no mapping"],
    ],
)
def test_foreign_json_is_refused(body: object) -> None:
    with pytest.raises(UsageError, match="no result of a comparison of answers"):
        finding(body)  # type: ignore[arg-type]
