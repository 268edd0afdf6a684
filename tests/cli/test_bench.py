"""`moe-serve bench` against real HTTP servers, as a person types it."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from moe_serve.cli.main import main
from tests.benchmark.streaming import Pace, streaming

SMALL = [
    "--shapes", "16x8", "--concurrency", "2,4", "--prompts-per-slot", "3",
    "--warmups-per-slot", "1", "--pairs", "3",
]  # fmt: skip


def bench(stable: Pace, canary: Pace, out: Path, *flags: str) -> int:
    with streaming(stable) as one, streaming(canary) as other:
        given = ["--stable-url", one, "--canary-url", other, "--out", str(out)]
        return main(["bench", *given, *SMALL, *flags])


def runs(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_one_command_measures_writes_and_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    code = bench(Pace(between=0.05), Pace(between=0.025), out, "--output", "json")
    told = json.loads(capsys.readouterr().out)
    # Twice as fast, but nobody compared the answers.
    assert (code, told["verdict"], told["evidence"]) == (20, "KEEP_GOING", "B")
    assert "the answers are not shown to be the same" in told["reason"]
    assert 1.3 < told["speedup"] < 2.2
    assert told["pairs"] == 3
    assert all(check["passed"] for check in told["checks"] if check["name"] in ("pairs", "order"))
    found = runs(out)
    assert len(found) == 3 * 2 * 2
    # The same files, judged later, say the same.
    assert main(["canary", "judge", "--from", str(out), "--output", "json"]) == 20
    assert json.loads(capsys.readouterr().out) == told


def test_a_run_has_the_schema_and_the_numbers_of_what_happened(tmp_path: Path) -> None:
    out, stable = tmp_path / "runs", Pace(first=0.03, between=0.01)
    bench(stable, Pace(), out, "--tp", "2", "--stable-image", "vllm:a", "--range-ratio", "1")
    run = runs(out)["stable-16x8-c2-tp2-p1"]
    assert (run["hw"], run["tp"], run["image"], run["model"]) == ("mi355x", 2, "vllm:a", "known")
    assert (run["isl"], run["osl"], run["conc"], run["pair"], run["planned_pairs"]) == (
        16,
        8,
        2,
        1,
        3,
    )
    assert (run["completed"], run["failed"]) == (6, 0)
    assert (run["total_input_tokens"], run["total_output_tokens"]) == (6 * 16, 6 * 8)
    assert run["tput_per_gpu"] == pytest.approx(6 * 24 / run["duration"] / 2)
    assert 0.03 <= run["median_ttft"] < 0.08
    assert 0.009 <= run["median_itl"] < 0.03
    assert run["median_intvty"] == pytest.approx(1 / run["median_tpot"])
    assert run["client_busy"] > 0


def test_both_arms_are_asked_the_same_in_turns_and_no_cache_finds_it_again(tmp_path: Path) -> None:
    stable, canary = Pace(), Pace()
    bench(stable, canary, tmp_path / "one", "--seed", "7")
    bench(stable, canary, tmp_path / "two", "--seed", "7")
    # A fixed number in flight: the order within a run is the servers' own.
    prompts = [sorted(str(body["prompt"]) for body in pace.bodies) for pace in (stable, canary)]
    assert prompts[0] == prompts[1]
    assert len(set(prompts[0])) == len(prompts[0]) / 2
    assert all(body["ignore_eos"] and body["temperature"] == 0 for body in stable.bodies)
    assert all(13 <= len(body["prompt"]) <= 16 for body in stable.bodies)
    assert len({body["cache_salt"] for body in (*stable.bodies, *canary.bodies)}) == 4
    started = sorted(
        (run["started"], run["arm"], run["pair"]) for run in runs(tmp_path / "one").values()
    )
    order = [(arm, pair) for _, arm, pair in started[::2]]
    assert order == [
        ("stable", 1), ("canary", 1), ("canary", 2), ("stable", 2), ("stable", 3), ("canary", 3),
    ]  # fmt: skip


def test_failed_requests_are_counted_and_roll_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(Pace(), Pace(fail=5), tmp_path / "runs") == 10
    assert "requests of the canary arm failed" in capsys.readouterr().out


def test_the_form_of_the_stream_does_not_matter(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    bench(Pace(chunked=True), Pace(), out, "--range-ratio", "1")
    for run in runs(out).values():
        assert run["failed"] == 0 and run["total_output_tokens"] == 8 * run["completed"]


def test_an_api_key_goes_into_the_header_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    out, flags = tmp_path / "runs", ("--api-key-file", str(key))
    bench(Pace(key="s3cret"), Pace(key="s3cret"), out, *flags)
    told = capsys.readouterr()
    assert "s3cret" not in told.out + told.err + "".join(p.read_text() for p in out.iterdir())
    assert bench(Pace(key="other"), Pace(), tmp_path / "no", *flags) == 2
    assert "HTTP 401" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("canary", "flags", "says"),
    [
        (Pace(refuse=400), (), "all 6 requests failed, the first with: HTTP 400"),
        (Pace(usage=False), (), "stream ended without `usage`"),
        (Pace(cut=True), (), "stream ended without `usage`"),
        (Pace(cut=True, chunked=True), (), "WireError: the answer was cut off"),
        (Pace(longest=20), (), "the canary server takes 20 tokens, 24 are needed"),
        (Pace(model="other"), (), "--model: name one that both servers serve (stable: known;"),
        (Pace(), ("--model", "other"), "--model: name one"),
        (Pace(), ("--shapes", "1k"), "--shapes '1k'"),
        (Pace(), ("--shapes", "0x8"), "--shapes '0x8'"),
        (Pace(), ("--concurrency", "4,-1"), "--concurrency '-1'"),
        (Pace(), ("--range-ratio", "2"), "--range-ratio 2.0"),
        (Pace(), ("--vocabulary", "9"), "--vocabulary 9"),
        (Pace(), ("--pairs", "0"), "--pairs: '0'"),
        (Pace(), ("--policy-file", "nowhere.yaml"), "nowhere.yaml"),
        (Pace(), ("--quality", "/dev/null"), "--quality /dev/null: not JSON"),
        (Pace(), ("--api-key-file", "nowhere"), "--api-key-file nowhere"),
        (Pace(), ("--stable-url", "localhost:8000"), "--stable-url 'localhost:8000'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    canary: Pace,
    flags: tuple[str, ...],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench(Pace(), canary, tmp_path / "runs", "--warmup-passes", "0", *flags) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("moe-serve")]
    assert len(told) == 1 and says in told[0]


def test_a_server_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert bench(Pace(), Pace(), tmp_path / "runs", "--canary-url", gone) == 2
    assert f"{gone}: ConnectError" in capsys.readouterr().err


def test_runs_of_two_benchmarks_do_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text("{}")
    assert bench(Pace(), Pace(), tmp_path) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_later_pairs_in_another_folder_are_judged_with_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, first in ((one, "1"), (two, "4")):
        code = bench(Pace(), Pace(), folder, "--warmup-passes", "0", "--first-pair", first)
        # Whatever the verdict is on a busy machine, all of it was measured.
        assert code in (0, 10, 20), capsys.readouterr().err
        assert len(runs(folder)) == 3 * 2 * 2
    capsys.readouterr()
    main(["canary", "judge", "--from", str(one), str(two), "--pairs", "6", "--output", "json"])
    assert json.loads(capsys.readouterr().out)["pairs"] == 6
