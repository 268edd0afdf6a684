"""A file that may promote a canary is taken as the probe writes it, or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_serve.analysis.verdict import Verdict
from moe_serve.config.quality_file import read
from moe_serve.errors import UsageError
from moe_serve.judge.audit import inputs, reproduce
from moe_serve.quality.finding import QualityFinding, accept_if_bound, accept_if_same_pods, finding
from moe_serve.quality.result import NoQuality, QualityOutcome
from tests.testing.probed import Facts, facts, probed
from tests.testing.verdicts import findings

PASSED = probed(QualityOutcome.PASSED)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "answers.json"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("outcome", list(QualityOutcome))
def test_what_the_probe_writes_is_taken(outcome: QualityOutcome, tmp_path: Path) -> None:
    found = read(written(tmp_path, json.dumps(probed(outcome))))
    assert isinstance(found, QualityFinding)
    assert (found.outcome, found.allowed) == (outcome, 0.005)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda body: body | {"number": None}, "number is not its cells' highest bound"),
        (lambda body: body | {"number": 9.0, "allowed": 0.005}, "not its cells' highest bound"),
        (lambda body: body | {"allowed": 0.0001}, "passed, with 0.0015 where 0.0001 is allowed"),
        (lambda body: body | {"allowed": -1.0}, "allowed: Input should be greater than 0"),
        (lambda body: body | {"number": True}, "number: Input should be a valid number"),
        (lambda body: body | {"allowed": True}, "allowed: Input should be a valid number"),
        (lambda body: body | {"cells": None}, "not every cell has an upper bound"),
        (lambda body: body | {"cells": []}, "cells: "),
        (lambda body: body | {"more": 1}, "more: unknown key"),
        (lambda body: body | {"outcome": "fine"}, "outcome: "),
        (lambda body: body | {"outcome": None}, "outcome: "),
        (lambda body: {k: v for k, v in body.items() if k != "arms"}, "arms: Field required"),
        (lambda body: {k: v for k, v in body.items() if k != "at"}, "at: Field required"),
        (lambda body: {k: v for k, v in body.items() if k != "traffic"}, "traffic: Field required"),
        (lambda body: body | {"traffic": {"batch": 0}}, "traffic.exporter: Field required"),
        (lambda body: body | {"mode": "non-inferior"}, "not all planned items were answered"),
        (lambda _: {}, "Field required"),
        (lambda _: [], "document: must be a mapping"),
    ],
)
def test_a_pass_that_shows_nothing_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        read(written(tmp_path, json.dumps(change(dict(PASSED)))))
    told = str(caught.value)
    assert told.startswith(f"--quality {tmp_path}/answers.json: ")
    assert says in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"outcome": "passed", "outcome": "failed"}', "the key 'outcome' is there twice"),
        ('{"reason": "\\ud800"}', "is half a character"),
        (json.dumps(PASSED)[:-1] + ', "x": NaN}', "NaN is no number"),
        (json.dumps(PASSED)[:-1] + ', "x": 1e999}', "1e999 is out of range"),
        (json.dumps(PASSED)[:-1] + ', "x": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_json_beyond_its_limits_is_refused_in_one_line(
    text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        read(written(tmp_path, text))
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"--quality {tmp_path}/answers.json: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_encoding_and_a_folder_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        read(path)
    with pytest.raises(UsageError, match="Is a directory"):
        read(tmp_path)


def test_no_file_yet_is_no_comparison(tmp_path: Path) -> None:
    assert isinstance(read(tmp_path / "none.json"), NoQuality)


def taken(tmp_path: Path, outcome: QualityOutcome, known: Facts | None = None) -> QualityFinding:
    found = read(written(tmp_path, json.dumps(probed(outcome, known=known))))
    assert isinstance(found, QualityFinding)
    return found


STABLE, CANARY = facts()
JUDGED = {"stable": {**STABLE, "track": "a"}, "canary": {**CANARY, "track": "b"}}


def test_answers_of_the_judged_pods_count(tmp_path: Path) -> None:
    told = taken(tmp_path, QualityOutcome.PASSED)
    assert accept_if_same_pods(told, JUDGED) is told
    assert findings(told).judgement.verdict is Verdict.PROMOTE


@pytest.mark.parametrize(
    ("judged", "says"),
    [
        (
            {"worker_config_digest": "dd"},
            "canary had worker_config_digest 0123456789abcdef then, dd is judged",
        ),
        # Only some of its pods were asked.
        ({"worker_config_digest": "0123456789abcdef | dd"}, "0123456789abcdef | dd is judged"),
        # The digest leaves the pads out.
        ({"policy": "rounded"}, "canary had policy aligned then, rounded is judged"),
        ({"worker_config_digest": "unknown"}, "unknown is judged"),
    ],
)
@pytest.mark.parametrize("outcome", [QualityOutcome.PASSED, QualityOutcome.FAILED])
def test_answers_of_other_pods_count_for_nothing(
    outcome: QualityOutcome, judged: dict[str, str], says: str, tmp_path: Path
) -> None:
    changed = {**JUDGED, "canary": {**JUDGED["canary"], **judged}}
    other = accept_if_same_pods(taken(tmp_path, outcome), changed)
    assert isinstance(other, NoQuality)
    assert says in other.reason


def test_pods_that_tell_no_digest_are_not_those_that_were_asked(tmp_path: Path) -> None:
    told = taken(tmp_path, QualityOutcome.PASSED)
    assert isinstance(accept_if_same_pods(told, {**JUDGED, "stable": {}}), NoQuality)


UNASKED = [(None, None), (None, CANARY), (STABLE, {"policy": "aligned"})]


@pytest.mark.parametrize("known", UNASKED)
def test_a_pass_of_pods_that_nobody_asked_promotes_nothing_and_says_so(
    known: Facts, tmp_path: Path
) -> None:
    judged = findings(taken(tmp_path, QualityOutcome.PASSED, known)).judgement
    assert judged.verdict is Verdict.KEEP_GOING
    lacking = " and ".join(
        arm
        for arm, told in zip(("stable", "canary"), known, strict=True)
        if not told or "worker_config_digest" not in told
    )
    assert f"not known to be of these pods: no worker_config_digest of {lacking};" in judged.reason
    assert "(passed: answers passed)" in judged.reason


def test_answers_that_differ_roll_back_and_say_that_nobody_asked(tmp_path: Path) -> None:
    failed = taken(tmp_path, QualityOutcome.FAILED, (None, None))
    found = findings(failed)
    assert found.judgement.verdict is Verdict.ROLLBACK
    assert "not known to be of these pods" in found.judgement.reason
    assert "not known to be of these pods" in str(found.judgement.quality["reason"])
    # What an audit keeps of it is judged the same again, as is what it kept before anybody asked.
    assert reproduce(inputs(found)).to_json() == found.to_json()
    assert accept_if_same_pods(failed, JUDGED) is failed


def test_a_pass_cannot_say_itself_that_it_was_noticed() -> None:
    body = probed(QualityOutcome.PASSED, known=(None, None))
    body["reason"] += (
        " (not known to be of these pods: no worker_config_digest of stable and canary)"
    )
    assert isinstance(accept_if_bound(finding(body)), NoQuality)
