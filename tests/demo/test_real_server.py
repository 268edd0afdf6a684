"""One real vLLM server over the emulated kernel: lossy pads stop it, lossless ones leave proof."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moe_serve_demo.errors import DemoError
from moe_serve_demo.servers import MODEL_NAME, DemoArm, DemoServer, Place
from moe_serve_emulation.checkpoint import CheckpointSpec, generate

from moe_serve.cli.main import main

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PORT = 18350


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rank's width at TP=8: small, and vLLM's own pads lose 104 of its 360 neurons."""
    return generate(tmp_path_factory.mktemp("models"), CheckpointSpec(intermediate=360))


@pytest.fixture
def server(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[DemoServer]:
    started = DemoServer(
        request.param,
        Place(
            vllm_python=Path(sys.executable),
            model=model,
            port=PORT,
            core=min(os.sched_getaffinity(0)),
            work=tmp_path,
            environment=os.environ,
        ),
    )
    started.start()
    yield started
    started.stop()


@pytest.mark.parametrize("server", [DemoArm(name="lossy", policy="upstream")], indirect=True)
def test_lossy_pads_without_a_budget_stop_the_start(server: DemoServer) -> None:
    with pytest.raises(DemoError, match="ended"):
        server.wait_ready(lambda _seconds: None)

    log = server.server.log.read_text("utf-8")
    assert "104 of 360" in log
    assert "MOE_SERVE_PADDING=aligned" in log
    assert main(["preflight", "--proof", "--record-dir", str(server.records)]) == 1


@pytest.mark.parametrize("server", [DemoArm(name="lossless", policy="aligned")], indirect=True)
def test_aligned_pads_serve_and_leave_proof(server: DemoServer) -> None:
    server.wait_ready(lambda _seconds: None)

    body = {"model": MODEL_NAME, "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json()

    assert answer["usage"]["completion_tokens"] == 4
    assert main(["preflight", "--proof", "--record-dir", str(server.records)]) == 0
    server.stop()
    assert main(["preflight", "--proof", "--record-dir", str(server.records)]) == 1
