"""Real vLLM serves the learned models: as they were trained, right with lossless pads alone."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="the `vllm` tier runs in the serving environment")

import torch
from safetensors.torch import load_file

from benchmarks.gpt_oss import logits
from moe_serve.demo import exam
from moe_serve.demo.servers import MODEL_NAME, Arm, Place, Server
from moe_serve.emulation.checkpoint import config
from moe_serve.emulation.learned.checkpoint import generate
from moe_serve.emulation.learned.models import SPECS, path
from moe_serve.emulation.learned.tasks import task
from moe_serve.emulation.learned.tokenizer import SIZE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PORT = 18390
WIDTH = 360
# More than the 128 tokens that the layers with a sliding window see.
TOKENS = 200


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    started = Server(
        request.param,
        Place(
            vllm_python=Path(sys.executable),
            model=generate(tmp_path / "models", WIDTH),
            port=PORT,
            core=min(os.sched_getaffinity(0)),
            work=tmp_path,
            environment=os.environ,
        ),
    )
    started.start()
    try:
        started.wait_ready(lambda _seconds: None)
        yield started
    finally:
        started.stop()


@pytest.mark.parametrize("server", [Arm(name="lossless", policy="aligned")], indirect=True)
def test_vllm_scores_tokens_as_the_model_that_was_trained_and_answers_right(server: Server) -> None:
    source = torch.Generator().manual_seed(3)
    ids = torch.randint(2, SIZE, (2, TOKENS), generator=source)

    for tokens, expected in zip(ids, scores(ids), strict=True):
        served = scored(server, tokens.tolist())
        # bfloat16 in vLLM, float32 here.
        gap = (served - expected).abs()
        assert gap.mean() < 0.05, gap.mean()
        assert gap[-50:].mean() < 0.05, "beyond the window"

    for name, least in (("format", 59), ("arithmetic", 56)):
        marks = asyncio.run(exam.examine(server.url, task(name, 60, seed=5)))
        assert sum(marks.values()) >= least, name


@pytest.mark.parametrize(
    "server", [Arm(name="lossy", policy="upstream", max_neuron_loss=0.3)], indirect=True
)
def test_answers_are_wrong_where_vllms_own_pads_lose_neurons(server: Server) -> None:
    for name in ("format", "arithmetic"):
        marks = asyncio.run(exam.examine(server.url, task(name, 60, seed=5)))
        assert sum(marks.values()) <= 30, name


def scores(ids: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token but the first, by the model as it was trained."""
    weights = {name: weight.float() for name, weight in load_file(path(WIDTH)).items()}
    with torch.no_grad():
        told = logits(weights, ids, config(SPECS[WIDTH]))
    return told[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]


def scored(server: Server, tokens: list[int]) -> torch.Tensor:
    """The same from vLLM."""
    body = {"model": MODEL_NAME, "prompt": tokens, "max_tokens": 1, "prompt_logprobs": 0}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
    given = answer["choices"][0]["prompt_logprobs"][1:]
    return torch.tensor(
        [at[str(token)]["logprob"] for at, token in zip(given, tokens[1:], strict=True)]
    )
