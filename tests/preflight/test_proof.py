"""Silence is not safety: what counts as proof, and what each lack of it says."""

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from moe_serve.cli.main import main
from moe_serve.telemetry.record import Rank, RecordWriter
from tests.testing import proofs

SHAPE = proofs.shape(sent={"hidden": 192, "intermediate": 192})
LOSSY = proofs.shape(
    sent={"hidden": 128, "intermediate": 384},
    lost_neurons=192,
    safe=False,
    violations=[{"id": "live-weights-lost", "message": "192 of 2880 live neurons"}],
)


def worker(folder: Path, tp: int = 0, **changes: Any) -> RecordWriter:
    writer = RecordWriter(folder, Rank(tp=tp))
    proofs.write_json(writer, **{"shapes": [SHAPE], **changes})
    return writer


def check(folder: Path, *flags: str) -> int:
    return main(["preflight", "--proof", "--record-dir", str(folder), *flags])


def test_a_living_worker_with_safe_pads_at_a_real_call_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = worker(tmp_path)

    assert check(tmp_path) == 0
    assert "pads 192/192 of 192/192 sent" in capsys.readouterr().out
    writer.close()


def test_every_rank_must_have_its_proof(tmp_path: Path) -> None:
    writers = [worker(tmp_path, tp=tp) for tp in range(2)]

    assert [check(tmp_path, "--ranks", "2"), check(tmp_path, "--ranks", "3")] == [0, 1]
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"intercepted_calls": 0, "shapes": []}, "VLLM_ROCM_USE_AITER=1"),
        ({"shapes": []}, "VLLM_ROCM_USE_AITER=1"),
        ({"intercepted_calls": "4"}, "intercepted_calls: '4' is not a whole number"),
        ({"shapes": [{**SHAPE, "safe": "false"}]}, "shapes[0].safe: 'false' is not true or false"),
        ({"shapes": [{"safe": True}]}, "shapes[0].padded: missing"),
        ({"version": 7}, "version: 7 is unknown"),
        ({"shapes": [LOSSY]}, "192 of 2880"),
        ({"fault": "this vLLM is not known; set MOE_SERVE_PADDING=off"}, "MOE_SERVE_PADDING=off"),
    ],
)
def test_a_proof_that_proves_too_little_fails_and_says_what_to_do(
    changes: dict[str, Any], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = worker(tmp_path, **changes)

    assert check(tmp_path) == 1
    assert named in capsys.readouterr().out
    writer.close()


def test_ranks_with_different_policies_fail(tmp_path: Path) -> None:
    writers = [worker(tmp_path), worker(tmp_path, tp=1, policy="zero")]

    assert check(tmp_path, "--ranks", "2") == 1
    for writer in writers:
        writer.close()


def test_no_record_says_how_a_plugin_comes_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path / "missing") == 1
    assert "VLLM_PLUGINS" in capsys.readouterr().out


def test_a_dead_workers_proof_proves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker(tmp_path).close()

    assert check(tmp_path) == 1
    assert "workers that have ended" in capsys.readouterr().out


def test_json_has_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = worker(tmp_path)
    check(tmp_path, "--output", "json")

    answer = json.loads(capsys.readouterr().out)

    assert answer["passed"] is True
    assert [entry["passed"] for entry in answer["checks"]] == [True, True, True]
    writer.close()


class Health(BaseHTTPRequestHandler):
    """Answers with the status that its path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (302, 1), (204, 1)])
def test_readiness_needs_the_servers_answer_too(
    status: int, code: int, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = worker(tmp_path)

    assert check(tmp_path, "--url", f"{url}/{status}") == code
    assert f"answers {status}" in capsys.readouterr().out
    writer.close()


def test_an_answer_without_proof_is_not_ready(url: str, tmp_path: Path) -> None:
    assert check(tmp_path, "--url", f"{url}/200") == 1


def test_a_server_that_is_not_there_is_not_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = worker(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert check(tmp_path, "--url", f"http://127.0.0.1:{port}/health") == 1

    assert "does not answer" in capsys.readouterr().out
    writer.close()


def test_a_foreign_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.record").write_text("hello")

    assert check(tmp_path) == 2
    assert "x.record: it is no moe-serve record" in capsys.readouterr().err
