import json
import math
from pathlib import Path

import pytest

from moe_serve.cli.main import main
from moe_serve.quality.result import QualityOutcome
from tests.benchmark.runs import pairs
from tests.testing.probed import probed

PUBLISHED = Path(__file__).parents[2] / "docs/examples/vllm-42098.json"


def test_the_published_table_is_judged_and_its_single_runs_are_said_plainly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["canary", "judge", "--from", str(PUBLISHED)]) == 20
    text = capsys.readouterr().out
    assert text.startswith("KEEP_GOING: tokens/s per GPU +7.6%")
    assert "one unpaired run each" in text
    assert "claim 1.08: inside 1.041 to 1.112, over the 10 cells only" in text
    assert "evidence D" in text


def test_the_published_ratios_per_shape_are_in_the_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["canary", "judge", "--from", str(PUBLISHED), "--output", "json"])
    found = json.loads(capsys.readouterr().out)
    shapes = {row["shape"]: row["ratio"] for row in found["speed"]["shapes"]}
    assert shapes == {
        "1k1k": pytest.approx(1.108, abs=5e-4),
        "8k1k": pytest.approx(1.045, abs=5e-4),
    }
    mean = math.fsum(cell["ratio"] for cell in found["speed"]["cells"]) / 10
    # The mean of the ratios is 1.077; their geometric mean, which the judge uses, a little less.
    assert mean == pytest.approx(1.077, abs=5e-4)
    assert found["speedup"] == pytest.approx(1.0758, abs=1e-4)
    assert (found["claim"]["inside"], found["lo"], found["evidence"]) == (True, None, "D")


def test_a_policy_and_a_claim_are_taken_into_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("speed: {margin: 0.2}\n", "utf-8")
    flags = ["--policy-file", str(policy), "--claim", "1.2", "--output", "json"]
    main(["canary", "judge", "--from", str(PUBLISHED), *flags])
    found = json.loads(capsys.readouterr().out)
    assert found["claim"]["inside"] is False
    gain = next(check for check in found["checks"] if check["name"] == "gain")
    assert gain["threshold"] == pytest.approx(math.log(1.2))


@pytest.mark.parametrize(
    ("gain", "answers", "code"),
    [
        (1.08, QualityOutcome.PASSED, 0),
        (1.08, QualityOutcome.FAILED, 10),
        (0.9, QualityOutcome.PASSED, 10),
    ],
)
def test_pairs_with_a_comparison_of_answers_are_decided(
    gain: float, answers: QualityOutcome, code: int, tmp_path: Path
) -> None:
    folder, told = tmp_path / "runs", tmp_path / "answers.json"
    folder.mkdir()
    told.write_text(json.dumps(probed(answers)), "utf-8")
    for at, run in enumerate(pairs(gain)):
        content = {
            "arm": run.arm.value,
            "pair": run.pair,
            "planned_pairs": run.planned_pairs,
            "isl": run.cell.shape.input_tokens,
            "osl": run.cell.shape.output_tokens,
            "conc": run.cell.concurrency,
            "tp": 1,
            "tput_per_gpu": run.tput_per_gpu,
            "p99_ttft": run.latencies.ttft_p99,
            "p99_itl": run.latencies.itl_p99,
            "failed": run.failed,
            "started": run.started,
        }
        (folder / f"{at}.json").write_text(json.dumps(content), "utf-8")
    assert main(["canary", "judge", "--from", str(folder), "--quality", str(told)]) == code


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--from", "nowhere.json"], "--from nowhere.json: No such file"),
        (["--from", str(PUBLISHED), "--claim", "8"], "--claim 8.0"),
        (["--from", str(PUBLISHED), "--claim", "much"], "--claim: 'much'"),
        (["--from", str(PUBLISHED), "--pairs", "0"], "--pairs: '0'"),
        (["--from", str(PUBLISHED), "--history", "x"], "give no other"),
        (["--from", str(PUBLISHED), "--start", "1"], "judged whole"),
        (["--from", str(PUBLISHED), "--stable-label", "canary"], "give two values"),
        (
            ["--policy-file", "strata: {batches: [8]}"],
            ": strata: benchmark results do not tell batch",
        ),
        (
            ["--policy-file", "guards: {ttft: {margin: 0.1}}"],
            ": guards: benchmark results have a rule",
        ),
        (
            ["--policy-file", "speed: {primary: kernel}"],
            ": speed.primary: benchmark results do not",
        ),
        (
            ["--policy-file", "weights: [{batch: 8, share: 1}]"],
            ": weights: benchmark results do not",
        ),
        (["--from", str(PUBLISHED), "--stable-label", "blue"], "is neither 'blue'"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if flags[0] == "--policy-file":
        (tmp_path / "rules.yaml").write_text(flags[1])
        flags = ["--from", str(PUBLISHED), "--policy-file", str(tmp_path / "rules.yaml")]
    assert main(["canary", "judge", *flags]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
