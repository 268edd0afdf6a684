import json
from pathlib import Path

import pytest

from moe_serve.errors import UsageError
from moe_serve.judge.audit import Audit, entries, reproduce
from moe_serve.quality.finding import finding
from moe_serve.quality.result import NoQuality
from tests.testing.verdicts import findings


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    audit = Audit(path)
    audit.append(findings(), 1.0)
    audit.append(findings(NoQuality(reason="none")), 2.0)
    # A new process goes on with the same chain.
    Audit(path).append(findings(hours=0.5), 3.0)
    return path


def test_every_verdict_follows_from_its_own_line(log: Path) -> None:
    found = list(entries(log))
    assert [entry["verdict"]["verdict"] for entry in found] == [
        "PROMOTE",
        "KEEP_GOING",
        "KEEP_GOING",
    ]
    for entry in found:
        again = json.dumps(reproduce(entry).to_json(), sort_keys=True)
        assert again == json.dumps(entry["verdict"], sort_keys=True)


def test_a_verdict_tells_what_was_asked_for_each_number(log: Path) -> None:
    told = next(entries(log))["verdict"]
    queries = {query["subject"]: query for query in told["queries"]}
    assert queries["step"]["checks"] == [
        "arms_alive", "void_windows", "data_fresh", "noise_as_calibrated", "no_drift", "step_gain",
        "step_no_harm", "coverage", "every_cell", "mixed_no_harm",
    ]  # fmt: skip
    assert queries["configuration"]["checks"] == ["same_configuration", "configuration_known"]
    assert queries["step"]["samples"] > 0
    assert "moe_serve_steps_timed_total" in queries["step"]["expression"]
    provenance = {name for query in told["queries"] for name in query["checks"]}
    # The answers are compared elsewhere.
    assert {check["name"] for check in told["checks"]} - provenance == {"same_answers"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [lines[0].replace("PROMOTE", "ROLLBACK"), *lines[1:]], "line 1: changed"),
        (lambda lines: lines[1:], "line 1: a line before it is missing"),
        (lambda lines: [lines[0], lines[2]], "line 2: a line before it is missing"),
        (lambda lines: [lines[1], lines[0], lines[2]], "line 1: a line before it"),
        (lambda lines: [lines[0], lines[1][:100]], "line 2: no whole entry"),
    ],
)
def test_tampering_is_named(spoil: object, message: str, log: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "audit.jsonl"
    lines = log.read_text("utf-8").splitlines()
    spoiled.write_text("\n".join(spoil(lines)) + "\n", "utf-8")  # type: ignore[operator]
    with pytest.raises(UsageError, match=message):
        list(entries(spoiled))


def test_a_broken_chain_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("{}\n")
    with pytest.raises(UsageError, match="line 1"):
        Audit(path)


def test_equal_histories_give_equal_bytes() -> None:
    one, other = (json.dumps(findings().to_json(), sort_keys=True) for _ in range(2))
    assert one == other


def test_a_difference_that_is_not_under_test_voids_the_comparison() -> None:
    found = findings(versions=("0.32.0", "0.33.0"))
    assert found.judgement.verdict.value == "INVALID"
    assert "vllm: 0.32.0 and 0.33.0" in found.judgement.reason


def test_foreign_json_is_no_comparison_of_answers() -> None:
    with pytest.raises(UsageError, match="no result of a comparison"):
        finding({"outcome": "passed"})


def test_findings_hold_no_type_that_json_lacks() -> None:
    json.dumps(findings(hours=9).to_json(), allow_nan=False)
    assert findings(hours=9).judgement.verdict.value == "INVALID"  # five hours without data
