"""`moe-serve canary` as a person types it: exit codes, one-line errors, and what is printed."""

import argparse
import hashlib
import html
import json
from pathlib import Path

import pytest

from moe_serve.cli.canary_inputs import with_policy
from moe_serve.cli.main import build_parser, main
from moe_serve.judge.audit import Audit
from moe_serve.quality.result import QualityOutcome
from moe_serve.sources.recorded import write
from tests.testing.histories import START, Fleet, streams
from tests.testing.probed import examined, probed
from tests.testing.verdicts import findings

RULES = "spread: {gpu_sd: 0.003}\nvalidity: {under_test: [policy]}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("canary")
    (made / "rules.yaml").write_text(RULES)
    (made / "same.json").write_text(json.dumps(probed(QualityOutcome.PASSED)))
    for name, fleet in (
        ("good", Fleet()),
        ("none", Fleet(gain=1.0, noise=0.01)),
        ("silent", Fleet(silent="canary")),
        ("equal", Fleet(gain=1.0, policies=("zero", "zero"))),
    ):
        with (made / f"{name}.om").open("w", encoding="utf-8") as out:
            write(streams(fleet), out)
    return made


def canary(folder: Path, *words: str) -> int:
    return main(["canary", *(word.replace("@", f"{folder}/") for word in words)])


@pytest.mark.parametrize(
    ("words", "code", "begins"),
    [
        ("--history @good.om --quality @same.json", 0, "PROMOTE: faster and the same answers"),
        ("--history @good.om", 20, "KEEP_GOING: "),
        ("--history @none.om --quality @same.json", 10, "ROLLBACK: no gain"),
        ("--history @silent.om --quality @same.json", 30, "INVALID: an arm died"),
        (f"--history @good.om --end {START + 600}", 20, "KEEP_GOING: no estimate yet"),
    ],
)
def test_a_verdict_is_a_line_and_an_exit_code(
    words: str, code: int, begins: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary(folder, "judge", "--policy-file", "@rules.yaml", *words.split()) == code
    out = capsys.readouterr().out
    assert out.startswith(begins)
    assert out.count("\n") == 1


def test_json_is_the_verdict_with_its_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "judge --policy-file @rules.yaml --history @good.om --output json"
    canary(folder, *words.split())
    first = capsys.readouterr().out
    canary(folder, *words.split())
    assert capsys.readouterr().out == first
    assert json.loads(first)["verdict"] == "KEEP_GOING"


def written(folder: Path, name: str, more: str) -> str:
    (folder / name).write_text(RULES + more)
    return f"@{name}"


def test_a_policy_names_its_source_and_arms_and_a_flag_wins_over_each(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = written(folder, "placed.yaml", "source: {history: good.om}\narms: {canary: stable2}\n")
    assert canary(folder, "judge", "--policy-file", policy) == 30
    assert "canary has no pod with data" in capsys.readouterr().out
    assert canary(folder, "judge", "--policy-file", policy, "--canary-label", "canary") == 20
    assert "step rate +8." in capsys.readouterr().out
    words = ("--policy-file", policy, "--canary-label", "canary", "--quality", "@same.json")
    assert canary(folder, "judge", *words, "--history", "@none.om") == 10
    assert canary(folder, "judge", "--policy-file", policy, "--canary-label", "stable2") == 30
    capsys.readouterr()
    assert canary(folder, "judge", "--policy-file", policy, "--stable-label", "stable2") == 2
    assert "--stable-label and --canary-label are both 'stable2'" in capsys.readouterr().err


def test_a_secret_of_the_policys_server_goes_to_no_other(folder: Path) -> None:
    (folder / "token").write_text("s3cret")
    policy = written(
        folder, "server.yaml",
        "source: {prometheus: {url: 'http://a', selector: 'x=\"y\"', bearer_token_file: token}}\n",
    )  # fmt: skip

    def told(*flags: str) -> argparse.Namespace:
        words = ["canary", "judge", "--policy-file", policy.replace("@", f"{folder}/"), *flags]
        return with_policy(build_parser().parse_args(words))

    same = told("--selector", "z")
    assert (same.prometheus, same.selector) == ("http://a", "z")
    assert same.bearer_token_file == folder / "token"
    other = told("--prometheus", "http://b")
    assert (other.prometheus, other.selector, other.bearer_token_file) == ("http://b", "", None)
    auth = told("--basic-auth-file", "mine")
    assert (auth.basic_auth_file, auth.bearer_token_file) == (Path("mine"), None)


def test_registered_batch_sizes_must_all_be_covered_and_alone_decide(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--history", "@good.om", "--quality", "@same.json")
    for name, batches, code, text in (
        ("all", "[8, 32, 64]", 0, "PROMOTE: faster"),
        ("more", "[8, 32, 64, 128]", 20, "planned and not covered: batch 128"),
        ("fewer", "[32, 64]", 20, "not covered: step, batch 8 (2"),
    ):
        policy = written(folder, f"{name}.yaml", f"strata: {{batches: {batches}}}\n")
        assert canary(folder, "judge", "--policy-file", policy, *words) == code, name
        assert text in capsys.readouterr().out


def test_answers_to_another_number_of_items_than_registered_do_not_count(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "task.json").write_text(json.dumps(examined(items=400, margin=0.02)))
    words = ("--history", "@good.om", "--quality", "@task.json")
    for items, margin, more, code in (
        (400, 0.02, "", 0),
        (400, 0.05, "", 0),
        (1319, 0.02, "", 20),
        (400, 0.01, "", 20),
        (400, 0.02, ", alpha: 0.01", 20),
    ):
        rules = f"quality: {{mode: non-inferior, items: {items}, margin: {margin}{more}}}\n"
        policy = written(folder, "task.yaml", rules)
        assert canary(folder, "judge", "--policy-file", policy, *words) == code
        told = f"the policy has non-inferior with {margin:g} allowed over {items} items at level "
        assert (told in capsys.readouterr().out) is (code == 20)


def test_a_replay_ends_with_the_first_decision(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "replay --policy-file @rules.yaml --history @good.om --quality @same.json"
    assert canary(folder, *words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert ["PROMOTE" in line for line in lines] == [False] * 11 + [True]


def test_explaining_names_every_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary(folder, "explain", "--policy-file", "@rules.yaml", "--history", "@good.om")
    out = capsys.readouterr().out
    for name in ("arms_alive", "void_windows", "step_gain", "same_answers", "recorded file"):
        assert name in out
    # Four layers of 1.16, 1.64 and 2.28 ms in steps of 8.8, 11.2 and 14.4 ms, all as often.
    assert "MoE is about 59% of stable's step: the kernel's gain alone explains +4." in out
    assert "canary: policy aligned, vllm 0.32.0, worker_config_digest 0123456789abcdef" in out
    assert f"queries, of recorded file {folder / 'good.om'} (sha256 " in out
    assert "of 24 series, behind arms_alive, void_windows, data_fresh, " in out
    assert f" {folder / 'good.om'} | awk '$NF >= " in out


def test_a_calibration_is_the_policys_next_lines(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary(folder, "calibrate", "--history", "@equal.om") == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text(capsys.readouterr().out + "validity: {under_test: [policy]}\n")
    words = f"judge --policy-file {policy} --history @good.om --quality @same.json"
    assert canary(folder, *words.split()) == 0
    assert canary(folder, "calibrate", "--history", "@good.om") == 2
    assert "no A/A run: the arms differ in policy" in capsys.readouterr().err


def test_a_report_has_the_verdict_its_plots_and_what_was_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        f"report --policy-file @rules.yaml --history @good.om --quality @same.json --out {tmp_path}"
    )
    assert canary(folder, *words.split()) == 0
    assert capsys.readouterr().out.splitlines()[1] == str(tmp_path / "index.html")
    shown = (tmp_path / "index.html").read_text("utf-8")
    assert shown.count("<svg") == 3
    for text in (
        "Faster and the same answers",
        "one block, both arms",
        "8.0 pod-hours",
        "hours since the measurement began",
        "Published (vLLM#42098)",
        "not checked: no A/A run was given",
    ):
        assert text in shown
    summary = (tmp_path / "summary.md").read_text("utf-8")
    assert "no window" in summary
    for text in (summary, html.unescape(shown)):
        assert "# step, " in text
        assert "grep -E '^(moe_serve_steps_timed_total|moe_serve_step_seconds_total)" in text
    silent = f"report --policy-file @rules.yaml --history @silent.om --out {tmp_path}"
    assert canary(folder, *silent.split()) == 30
    (tmp_path / "file").touch()
    assert canary(folder, *words.replace(f"{tmp_path}", f"{tmp_path}/file").split()) == 2
    assert "--out" in capsys.readouterr().err


def test_an_audit_is_checked_and_judged_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit.jsonl"
    Audit(log).append(findings(), 1.0)
    check = ["canary", "replay", "--audit", str(log)]
    assert main(check) == 0
    out = capsys.readouterr().out
    assert "1 verdicts in 1 lines: the chain is whole" in out
    last = out.split()[-1]

    # The last verdict's code, and what was noted before is still there.
    Audit(log).append(findings(hours=0.5), 2.0)
    assert main([*check, "--last", last]) == 20
    later = capsys.readouterr().out.split()[-1]
    log.write_text(log.read_text("utf-8").splitlines(keepends=True)[0], "utf-8")
    assert main(check) == 0
    assert main([*check, "--last", later]) == 2
    assert f"no line has the hash {later}: its end was cut off" in capsys.readouterr().err


def chained(**body: object) -> str:
    entry = {"previous": "0" * 64, **body}
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return json.dumps({**entry, "hash": hashlib.sha256(text.encode()).hexdigest()}) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 lines and no verdict in them"),
        (chained(transition={"title": "x"}, rollout="r"), "1 lines and no verdict in them"),
        (
            chained(more=1),
            "line 1: not an entry that this version writes (KeyError: 'observations')",
        ),
        (chained(observed=3), "line 1: not an entry that this version writes"),
        ("[" * 100_000, "line 1: no whole entry"),
        (chained(more=1).replace("previous", "other"), "line 1: changed after"),
    ],
)
def test_an_audit_without_a_verdict_is_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text(text, "utf-8")
    assert main(["canary", "replay", "--audit", str(log)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_plan_says_what_cannot_be_decided(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary(folder, "power", "--block-noise", "0.05", "--gain", "1.031") == 0
    assert "cannot be decided" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("judge", "no source: give --history FILE"),
        ("judge --history @none.txt", "none.txt: No such file"),
        ("judge --history @rules.yaml", "line 1"),
        ("judge --history @good.om --start yesterday", "--start 'yesterday'"),
        ("judge --history @good.om --end inf", "--end 'inf': seconds since the epoch are 0 to"),
        ("judge --history @good.om --end nan", "--end 'nan': seconds"),
        ("judge --history @good.om --start 1e18", "--start '1e18': seconds"),
        ("serve --history @good.om --start=-inf", "--start '-inf': seconds"),
        ("power --block-noise 1e200", "--block-noise: '1e200'"),
        ("power --block-noise inf", "--block-noise: 'inf'"),
        ("power --block-noise 0.01 --gain inf", "--gain: 'inf'"),
        ("power --block-noise 0.01 --gain nan", "--gain: 'nan'"),
        ("judge --history @good.om --start 2026-05-01T12:00:00", "say which time zone"),
        ("judge --history @good.om --policy-file @same.json", "unknown key"),
        ("judge --history @good.om --quality @rules.yaml", "not JSON"),
        ("judge --prometheus http://x", "--start: when did the comparison begin?"),
        (
            "judge --exporter stable=http://x --start 1",
            "exporters have no past: only `canary serve`",
        ),
        (
            "judge --history @good.om --stable-label x --canary-label x",
            "--stable-label and --canary-label are both 'x'",
        ),
        ("judge --start 1", "no source: give --history FILE, --prometheus URL or --exporter ARM="),
        ("power", "--block-noise: how noisy is a block?"),
        ("replay --history @good.om --last ab", "--last: names a line of --audit"),
        ("replay --audit @good.om", "line 1: no whole entry"),
        ("serve --exporter stable=http://x/metrics", "none is given for the canary"),
        ("serve --history @good.om --listen here", "HOST:PORT is needed"),
    ],
)
def test_bad_input_is_one_line(
    words: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert canary(folder, *words.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
