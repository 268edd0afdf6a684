"""One real vLLM server over the emulated kernel: lossy pads stop it, lossless ones leave proof."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from moe_serve_demo import host, probing
from moe_serve_demo.errors import DemoError
from moe_serve_demo.judging import ChapterFiles
from moe_serve_demo.load import DemoLoad, prompts
from moe_serve_demo.measure import measure, scraper
from moe_serve_demo.scenarios import ALIGNED, DemoChapter
from moe_serve_demo.servers import MODEL_NAME, DemoArm, DemoServer, Place
from moe_serve_emulation.checkpoint import CheckpointSpec, generate

from moe_serve.cli.main import main
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import QualityOutcome

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


@contextmanager
def arms(chapter: DemoChapter, model: Path, work: Path) -> Iterator[list[DemoServer]]:
    """Both of a chapter's servers, ready and each on its core."""
    servers = [
        DemoServer(
            arm,
            Place(
                vllm_python=Path(sys.executable),
                model=model,
                port=PORT + 10 + number,
                core=core,
                work=work,
                environment=os.environ,
            ),
        )
        for number, (arm, core) in enumerate(
            zip((chapter.stable, chapter.canary), host.two_cores(), strict=True)
        )
    ]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_ready(lambda _seconds: None)
        yield servers


@pytest.mark.timeout(1200)
def test_canary_judge_repeats_the_verdict_on_real_servers(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short chapter of the demo: the probe passes, and the judge takes it for these arms."""
    chapter, files = replace(ALIGNED, intermediate=360), ChapterFiles(tmp_path / "aligned")
    plan = files.prepare("identical")
    with arms(chapter, model, tmp_path) as (stable, canary):
        result = asyncio.run(probing.probe(stable, canary, chapter, lambda _line: None))
        probing.write(files.quality, result)
        source = scraper(stable.exporter_url, canary.exporter_url)
        words = prompts(16, vocabulary=chapter.vocabulary, seed=1)
        load = DemoLoad(urls=(stable.url, canary.url), prompts=words)
        asyncio.run(
            measure((stable, canary), source, load, plan, cores=host.two_cores(),
                    decided=lambda _history: True)
        )  # fmt: skip
        source.record(files.history)
    _, found = files.judge()

    assert isinstance(found.quality, QualityFinding), found.quality.reason
    assert found.quality.outcome is QualityOutcome.PASSED, found.quality.reason
    assert found.observations.validity.config_differences == ()
    assert (found.observations.byte_bound or 0) > 0
    assert main([*files.command.split()[1:], "--output", "json"]) == 20
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))
