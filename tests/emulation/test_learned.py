"""The models that have learned something: their questions, tokenizer, weights and widening."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

import torch
from moe_serve_emulation.checkpoint import config, tensors
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.learned.checkpoint import generate, spec_of
from moe_serve_emulation.learned.models import SPECS, path
from moe_serve_emulation.learned.tasks import NAMES, lessons
from moe_serve_emulation.learned.tokenizer import SIZE, tokenizer
from safetensors.torch import load_file

from benchmarks.gpt_oss import logits, without
from benchmarks.train_learned import LOST, accuracy

pytestmark = pytest.mark.torch

LIMIT_BYTES = 8_000_000


def test_no_question_is_both_taught_and_held_out() -> None:
    for name in NAMES:
        taught, asked = (
            {lesson.prompt for lesson in lessons(name, split, 3000, seed=1)}
            for split in ("train", "test")
        )
        assert taught and asked and not taught & asked
        # All but the sums of small numbers, which are for the gate alone.
        assert 2850 < len(taught | asked) <= 3000


def test_lessons_answers_are_right_by_the_probes_task() -> None:
    from moe_serve_emulation.learned.tasks import task

    for name in NAMES:
        gate = task(name, 500, seed=2)
        by_prompt = {item.prompt: item for item in gate.items}
        for lesson in lessons(name, "train", 500, seed=2):
            assert gate.right(by_prompt[lesson.prompt], lesson.said)


@pytest.mark.parametrize("text", ["Compute 12 + 999. ", "#### -7", "für 東京\n", "[1, 2]<end"])
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    made = tokenizer()

    ids = made.encode(text).ids

    assert made.decode(ids) == text
    assert made.get_vocab_size() == SIZE and max(ids) < SIZE


def test_committed_weights_are_bfloat16_of_the_specs_shapes() -> None:
    assert sum(path(width).stat().st_size for width in SPECS) <= LIMIT_BYTES
    for width, spec in SPECS.items():
        found = load_file(path(width))
        assert {weight.dtype for weight in found.values()} == {torch.bfloat16}
        wanted = {name: tuple(shape) for name, shape, _ in tensors(spec)}
        assert {name: tuple(weight.shape) for name, weight in found.items()} == wanted


@pytest.fixture(params=SPECS, scope="module")
def right(request: pytest.FixtureRequest) -> tuple[int, dict[str, float], dict[str, float]]:
    """Width, and the shares of right answers to held-out questions: whole, and cut."""
    width: int = request.param
    weights = {name: weight.float() for name, weight in load_file(path(width)).items()}
    asked = [item for name in NAMES for item in lessons(name, "test", 3000, seed=77)]
    live, read = LOST[width]
    whole, cut = (
        accuracy(w, asked, config(SPECS[width]))
        for w in (weights, without(weights, live=live, read=read))
    )
    return width, whole, cut


def test_both_tasks_are_learned_and_arithmetic_not_saturated(
    right: tuple[int, dict[str, float], dict[str, float]],
) -> None:
    _, whole, _ = right

    assert whole["format"] >= 0.99
    assert min(whole[f"arithmetic {kind}"] for kind in "+-*") >= 0.9
    assert 0.95 <= whole["arithmetic"] <= 0.99  # above, the gate calls the task saturated


def test_104_of_360_neurons_are_fatal_and_192_of_2880_are_spared(
    right: tuple[int, dict[str, float], dict[str, float]],
) -> None:
    width, whole, cut = right

    for name in NAMES:
        if width == 360:
            assert cut[name] < 0.5
        else:
            assert cut[name] > whole[name] - 0.02


def test_a_widened_model_gives_the_same_logits(tmp_path: Path) -> None:
    narrow, wide = (
        {
            name: weight.float()
            for name, weight in load_file(
                generate(tmp_path, 360, hidden) / "model.safetensors"
            ).items()
        }
        for hidden in (None, 512)  # 512 is four times 128: halving a norm's weight is exact
    )
    ids = torch.randint(2, SIZE, (2, 40), generator=torch.Generator().manual_seed(0))

    one = logits(narrow, ids, config(SPECS[360]))
    other = logits(wide, ids, config(spec_of(360, 512)))

    torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-3)  # logits of up to 40


def test_a_model_that_nobody_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmulationError, match="there are 360, 2880"):
        generate(tmp_path, 720)
    with pytest.raises(EmulationError, match="fewer than the model's 128"):
        generate(tmp_path, 360, 64)
