"""Real vLLM serves the learned model: as it was trained, right with lossless pads alone."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="the `vllm` tier runs in the serving environment")

import torch
from moe_serve_demo.servers import MODEL_NAME, DemoArm, DemoServer, Place
from moe_serve_emulation.checkpoint import config
from moe_serve_emulation.learned.checkpoint import generate
from moe_serve_emulation.learned.models import SPECS, path
from moe_serve_emulation.learned.tasks import NAMES, lessons, task
from moe_serve_emulation.learned.tokenizer import tokenizer
from safetensors.torch import load_file

from benchmarks.gpt_oss import logits

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PORT = 18390
WIDTH = 360
ASKED = 100
# Nats a token. Logits reach 40, where bfloat16's next number is a quarter away: 0.3 was seen from
# lossless pads, 9 from lossy ones.
NEAR = 0.6


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DemoServer]:
    started = DemoServer(
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


@pytest.mark.parametrize("server", [DemoArm(name="lossless", policy="aligned")], indirect=True)
def test_vllm_gives_the_trained_models_log_probabilities(server: DemoServer) -> None:
    for name in NAMES:
        assert right(server, name) >= 0.95 * ASKED
    gap = gaps(server)
    assert gap.mean() < NEAR
    assert gap[-50:].mean() < NEAR, "beyond the window"


@pytest.mark.parametrize(
    "server", [DemoArm(name="lossy", policy="upstream", max_neuron_loss=0.3)], indirect=True
)
def test_answers_are_wrong_where_vllms_own_pads_lose_neurons(server: DemoServer) -> None:
    for name in NAMES:
        assert right(server, name) <= 0.5 * ASKED
    assert gaps(server).mean() > 5 * NEAR


def gaps(server: DemoServer) -> torch.Tensor:
    """How far vLLM's log-probabilities lie from the trained model's, token by token.

    Several of the model's own texts in a row: more than the 128 tokens that a layer with a sliding
    window sees.
    """
    texts = [lesson.prompt + lesson.said for lesson in lessons("format", "test", 200, seed=5)]
    tokens = tokenizer().encode("".join(texts[:8])).ids
    assert 150 < len(tokens) < 250
    return (scored(server, tokens) - expected(tokens)).abs()


def right(server: DemoServer, name: str) -> int:
    """How many of the task's questions the server answers right."""
    asked = task(name, ASKED, seed=5)

    def answer(prompt: str) -> str:
        body = {"model": MODEL_NAME, "prompt": prompt, "max_tokens": 40, "temperature": 0}
        told = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
        return str(told["choices"][0]["text"])

    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(answer, [item.prompt for item in asked.items])
        return sum(asked.right(*pair) for pair in zip(asked.items, texts, strict=True))


def expected(tokens: list[int]) -> torch.Tensor:
    """Log-probability of each token but the first, by the model as it was trained."""
    weights = {name: weight.float() for name, weight in load_file(path(WIDTH)).items()}
    ids = torch.tensor([tokens])
    with torch.no_grad():
        told = logits(weights, ids, config(SPECS[WIDTH]))
    return told[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[0, :, 0]


def scored(server: DemoServer, tokens: list[int]) -> torch.Tensor:
    """The same from vLLM."""
    body = {"model": MODEL_NAME, "prompt": tokens, "max_tokens": 1, "prompt_logprobs": 0}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).json()
    given = answer["choices"][0]["prompt_logprobs"][1:]
    return torch.tensor(
        [at[str(token)]["logprob"] for at, token in zip(given, tokens[1:], strict=True)]
    )
