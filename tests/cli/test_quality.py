import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moe_serve.cli.main import main
from moe_serve.config.quality_file import read
from moe_serve.quality.finding import (
    QualityFinding,
    QualityMode,
    QualityPolicy,
    accept_if_bound,
    accept_if_policy,
    accept_if_same_pods,
)
from moe_serve.quality.result import NoQuality
from moe_serve.telemetry.record import BatchPhase
from tests.testing.answering import VOCABULARY, Behaviour, serving
from tests.testing.exporters import exporting, stepped, worker
from tests.testing.proofs import proof

STABLE, CANARY = Behaviour(), Behaviour()


@pytest.fixture
def arms() -> Iterator[tuple[str, str]]:
    for arm in (STABLE, CANARY):
        arm.__init__()  # type: ignore[misc]  # a fresh arm at the same place
    with serving(STABLE) as stable, serving(CANARY) as canary:
        yield stable, canary


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": [at % 12, at // 12 % 12, at // 144, 5]} for at in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def words(arms: tuple[str, str], prompts: Path, *more: str) -> list[str]:
    asked = ["--prompts", str(prompts), "--texts", "128", "--per-round", "64", "--top", "5"]
    asked += ["--tokens", "8", "--greedy-tokens", "4", "--concurrency", "1,4", "--rounds", "2"]
    pair = ["--stable-url", arms[0], "--canary-url", arms[1]]
    return ["quality", "probe", *pair, *asked, "--output", "json", *more]


def probed(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str]
) -> tuple[int, dict[str, Any]]:
    code = main(arguments)
    said = json.loads(capsys.readouterr().out)
    assert taken(said).outcome.value == said["outcome"]
    return code, said


def taken(said: dict[str, Any]) -> QualityFinding:
    """What the judge reads of the same output."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(said, file)
        file.flush()
        found = read(Path(file.name))
    assert isinstance(found, QualityFinding)
    return found


def test_equal_arms_pass(
    arms: tuple[str, str], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = probed(capsys, words(arms, prompts))
    assert (code, found["outcome"], found["rounds"]) == (0, "passed", 1)
    assert [cell["prompts"] for cell in found["cells"]] == [64] * 4
    assert found["reference"]["source"] == "stable, at the start"
    assert found["counters"]["reason"].startswith("no counters of stable and canary")


def test_rounding_noise_passes(
    arms: tuple[str, str], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CANARY.off = 0.02
    assert probed(capsys, words(arms, prompts))[0] == 0


def test_another_distribution_fails_in_the_first_cell(
    arms: tuple[str, str], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CANARY.off = 0.7
    code, found = probed(capsys, words(arms, prompts))
    assert (code, found["outcome"], found["requests_an_arm"]) == (10, "failed", 64)
    assert "prefill at concurrency 1" in found["reason"]


def test_no_prefix_cache_can_answer(arms: tuple[str, str], prompts: Path) -> None:
    main(words(arms, prompts))
    assert len(set(STABLE.salts)) == len(STABLE.salts) > 256


def test_numbers_that_are_none_fail(
    arms: tuple[str, str], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CANARY.broken = True
    code, found = probed(capsys, words(arms, prompts))
    assert (code, found["outcome"]) == (10, "failed")
    assert "not finite" in found["reason"]


def test_answers_that_are_missing_never_pass(
    arms: tuple[str, str], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CANARY.fail = 10
    code, found = probed(capsys, words(arms, prompts))
    assert (code, found["outcome"]) == (20, "undecided")
    assert "canary: no answer to" in json.dumps(found["cells"])


def test_a_canary_that_answers_nothing_is_undecided(
    arms: tuple[str, str], prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CANARY.fail = 1
    code, found = probed(capsys, words(arms, prompts))
    assert (code, found["outcome"]) == (20, "undecided")


def test_a_gold_is_recorded_once_and_used(
    arms: tuple[str, str], prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.jsonl"
    record = ["quality", "record", "--server", arms[0], "--file", str(gold), "--prompts"]
    record += [str(prompts), "--texts", "128", "--tokens", "8", "--greedy-tokens", "4"]
    record += ["--top", "5"]
    assert main(record) == 0
    assert "128 texts of known" in capsys.readouterr().out
    assert main(record) == 2
    assert "made once" in capsys.readouterr().err

    # Stable has lost as much as the canary since: nothing between them, much to the gold.
    STABLE.off = CANARY.off = 0.7
    code, found = probed(capsys, words(arms, prompts, "--gold", str(gold)))
    assert code == 0 and min(cell["floor_nats"] for cell in found["cells"]) > 0.05
    assert found["reference"]["source"] == arms[0]

    gold.write_text(gold.read_text("utf-8") + '{"id": 3}\n', "utf-8")
    assert main(words(arms, prompts, "--gold", str(gold))) == 2
    assert "line 130 is not a recorded text" in capsys.readouterr().err


def exam(arms: tuple[str, str], *more: str) -> list[str]:
    pair = ["--stable-url", arms[0], "--canary-url", arms[1], "--mode", "non-inferior"]
    task = ["--task", "arithmetic", "--items", "300", "--concurrency", "8"]
    return ["quality", "probe", *pair, *task, "--output", "json", *more]


def test_an_exam_needs_a_bad_arm_that_fails_and_then_passes(
    arms: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = probed(capsys, exam(arms))
    assert code == 20 and "no arm that is known to be bad" in found["reason"]

    CANARY.answer = "#### 1"
    record = ["quality", "record", "--mode", "non-inferior", "--task", "arithmetic"]
    record += ["--items", "300", "--server", arms[1], "--file", str(tmp_path / "bad.json")]
    assert main(record) == 0
    assert "0.0% right" in capsys.readouterr().out

    CANARY.answer = None
    code, found = probed(capsys, exam(arms, "--known-bad", str(tmp_path / "bad.json")))
    assert (code, found["outcome"]) == (0, "passed")
    assert found["canary"]["items"] == 300 and 0.7 < found["canary"]["baseline"] < 0.95

    other = exam(arms, "--known-bad", str(tmp_path / "bad.json"), "--items", "299")
    assert main(other) == 2
    assert "other questions" in capsys.readouterr().err


def test_an_exam_without_answers_still_fails_by_its_counters(
    arms: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    STABLE.corrupts, CANARY.corrupts, CANARY.fail = False, True, 1
    code, said = probed(capsys, exam(arms))
    assert (code, said["planned_items"], said["alpha"]) == (10, 300, 0.05)
    assert "corrupted requests; answers: arithmetic: no item was answered" in said["reason"]
    question = QualityPolicy(mode=QualityMode.NON_INFERIOR, allowed=0.02, items=300, alpha=0.05)
    assert accept_if_policy(question, found := taken(said)) == found


def test_harm_stops_the_exam_at_the_early_look(
    arms: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    CANARY.answer = "#### 1"
    code, found = probed(capsys, exam(arms))
    assert (code, found["canary"]["items"]) == (10, 250)
    assert "harm" in found["reason"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--concurrency", "1,x"], "--concurrency"),
        (["--concurrency", "65"], "--per-round 64: needs at least 65"),
        (["--per-round", "129"], "at most 128"),
        (["--alpha", "0.9"], "alpha in (0, 0.5)"),
        (["--epsilon", "nan"], "--epsilon"),
        (["--gold", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["--prompts", "nowhere.jsonl"], "--prompts nowhere.jsonl: cannot be read"),
        (["--top", str(VOCABULARY + 1)], "at most 12 logprobs"),
        (["--canary-url", "http://127.0.0.1:1"], "--canary-url http://127.0.0.1:1: no answer"),
        (["--canary-url", "nonsense"], "--canary-url nonsense"),
        (["--mode", "non-inferior"], "--task-file: belongs to"),
        (["--mode", "non-inferior", "--task-file", "nowhere"], "--task-file nowhere"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arms: tuple[str, str],
    prompts: Path,
    more: Sequence[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(arms, prompts, *more)) == 2
    told = capsys.readouterr().err
    assert message in told.splitlines()[-1]
    assert "Traceback" not in told, told


def test_prompts_that_the_tokenizer_cannot_tell_apart_are_refused(
    arms: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = tmp_path / "same.jsonl"
    same.write_text("\n".join(json.dumps({"prompt": "hello"}) for _ in range(128)), "utf-8")
    assert main(words(arms, same)) == 2
    assert "128 prompts are 1 to its tokenizer" in capsys.readouterr().err


def test_built_in_prompts_are_used_where_there_is_no_file(
    arms: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "quality",
        "probe",
        "--stable-url",
        arms[0],
        "--canary-url",
        arms[1],
        "--texts",
        "64",
    ]
    arguments += ["--per-round", "64", "--tokens", "4", "--greedy-tokens", "2", "--top", "5"]
    assert main([*arguments, "--concurrency", "8", "--rounds", "2"]) == 0
    assert capsys.readouterr().out.startswith("passed: excess divergence below 0.005")


@pytest.fixture
def exporters(tmp_path: Path) -> Iterator[tuple[str, str]]:
    writer = worker(tmp_path / "stable", policy="raw")
    stepped(writer, BatchPhase.DECODE, 6, 0.3)
    stepped(writer, BatchPhase.DECODE, 1, 0.1)
    worker(tmp_path / "canary", policy="aligned")
    with exporting(tmp_path / "stable") as stable, exporting(tmp_path / "canary") as canary:
        yield stable, canary


def beside(exporters: tuple[str, str]) -> list[str]:
    return ["--stable-exporter", exporters[0], "--canary-exporter", exporters[1]]


def test_a_pass_is_bound_to_the_pods_that_were_probed(
    arms: tuple[str, str],
    exporters: tuple[str, str],
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, said = probed(capsys, words(arms, prompts, *beside(exporters)))
    assert [arm["exporter"] for arm in said["arms"].values()] == list(exporters)
    judged = {name: dict(arm["facts"]) for name, arm in said["arms"].items()}
    assert [facts["policy"] for facts in judged.values()] == ["raw", "aligned"]
    found = taken(said)
    assert accept_if_same_pods(found, judged) is found
    judged["canary"]["policy"] = "rounded"
    assert isinstance(accept_if_same_pods(found, judged), NoQuality)


def test_a_pass_without_exporters_is_of_no_known_pods_and_said_before_the_first_text(
    arms: tuple[str, str],
    exporters: tuple[str, str],
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(arms, prompts, *beside(exporters)[:2])) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("no --canary-exporter: the judge takes no pass of pods")
    said = json.loads(shown.out)
    assert (said["arms"]["canary"]["exporter"], said["arms"]["canary"]["facts"]) == (None, None)
    assert isinstance(accept_if_bound(taken(said)), NoQuality)


def test_pods_that_change_under_the_probe_are_no_arm(
    arms: tuple[str, str],
    exporters: tuple[str, str],
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    writer = worker(tmp_path / "changing", policy="aligned")
    CANARY.on_first = lambda: writer.prove(proof(policy="rounded"))
    with exporting(tmp_path / "changing") as url:
        assert main(words(arms, prompts, *beside((exporters[0], url)))) == 2
    shown = capsys.readouterr()
    assert "policy was aligned when the probe began and is rounded" in shown.err.splitlines()[-1]
    assert shown.out == ""


@pytest.mark.parametrize(
    ("named", "cells"),
    [("1,traffic", [1, 6]), ("traffic,1", [6, 1]), ("traffic", [6]), ("6,traffic", [6])],
)
def test_the_size_found_under_traffic_is_a_cell_and_named(
    arms: tuple[str, str],
    exporters: tuple[str, str],
    prompts: Path,
    named: str,
    cells: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = words(arms, prompts, *beside(exporters), "--concurrency", named)
    code, said = probed(capsys, arguments)
    assert code == 0
    assert said["traffic"] == {"exporter": exporters[0], "batch": 6, "busy_share": 0.75}
    assert [cell["concurrency"] for cell in said["cells"]] == sorted(cells) * 2


def test_traffic_may_be_that_of_another_pod_than_those_that_are_probed(
    arms: tuple[str, str],
    exporters: tuple[str, str],
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stepped(worker(tmp_path / "serving"), BatchPhase.DECODE, 3, 1)
    with exporting(tmp_path / "serving") as url:
        more = ["--traffic-exporter", url, "--concurrency", "traffic"]
        _, said = probed(capsys, words(arms, prompts, *more))
    assert said["traffic"] == {"exporter": url, "batch": 3, "busy_share": 1.0}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--concurrency", "1,traffic"], "needs --traffic-exporter or --stable-exporter"),
        (["--concurrency", "traffic,traffic"], "--concurrency"),
        (["--traffic-exporter", "CANARY"], "belongs to `traffic` in --concurrency"),
        (
            ["--traffic-exporter", "CANARY", "--concurrency", "traffic"],
            "has timed no batch without prefill, so traffic has no size",
        ),
        (["--stable-exporter", "http://127.0.0.1:1/metrics"], "no answer"),
        (["--canary-exporter", "ARM"], "HTTP 404; an exporter's is"),
    ],
)
def test_exporters_that_cannot_help_are_one_line_and_code_2(
    arms: tuple[str, str],
    exporters: tuple[str, str],
    prompts: Path,
    more: Sequence[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {"CANARY": exporters[1], "ARM": f"{arms[1]}/metrics"}
    assert main(words(arms, prompts, *(known.get(word, word) for word in more))) == 2
    told = capsys.readouterr().err
    assert message in told.splitlines()[-1]
    assert "Traceback" not in told, told
