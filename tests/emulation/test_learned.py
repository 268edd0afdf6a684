"""The models that have learned something: their questions, tokenizer, weights and widening."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

import torch
from safetensors.torch import load_file

from benchmarks.gpt_oss import logits, without
from benchmarks.train_learned import LOST, accuracy, table
from moe_serve.emulation.checkpoint import config, tensors
from moe_serve.emulation.learned.checkpoint import generate, spec_of
from moe_serve.emulation.learned.models import SPECS, path
from moe_serve.emulation.learned.tasks import NAMES, lessons
from moe_serve.emulation.learned.tokenizer import SIZE, tokenizer
from moe_serve.errors import EmulationError

pytestmark = pytest.mark.torch

LIMIT_BYTES = 8_000_000


def test_no_question_is_both_taught_and_held_out() -> None:
    for name in NAMES:
        taught, asked = (
            {lesson.prompt for lesson in lessons(name, split, 3000, seed=1)}
            for split in ("train", "test")
        )
        assert taught and asked and not taught & asked
        assert len(taught | asked) == 3000


def test_answers_are_right_in_the_eyes_of_the_gate() -> None:
    from moe_serve.emulation.learned.tasks import task

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


def test_the_committed_weights_are_small_bfloat16_and_of_the_shapes_they_claim() -> None:
    assert sum(path(width).stat().st_size for width in SPECS) <= LIMIT_BYTES
    for width, spec in SPECS.items():
        found = load_file(path(width))
        assert {weight.dtype for weight in found.values()} == {torch.bfloat16}
        wanted = {name: tuple(shape) for name, shape, _ in tensors(spec)}
        assert {name: tuple(weight.shape) for name, weight in found.items()} == wanted


@pytest.mark.parametrize(("width", "least", "most_cut"), [(360, 0.98, 0.2), (2880, 0.95, 0.95)])
def test_lists_are_sorted_by_the_whole_model_and_less_well_without_neurons(
    width: int, least: float, most_cut: float
) -> None:
    weights = {name: weight.float() for name, weight in load_file(path(width)).items()}
    asked = {"format": table(lessons("format", "test", 3000, seed=77), "cpu")}
    known = config(SPECS[width])
    live, read = LOST[width]

    whole = accuracy(weights, asked, known)["format"]
    cut = accuracy(without(weights, live=live, read=read), asked, known)["format"]

    assert whole >= least
    assert cut <= most_cut
    assert width == 360 or cut > 0.8  # a loss of 192 of 2880 neurons is survived


def test_a_widened_model_says_the_same(tmp_path: Path) -> None:
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

    torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


def test_a_model_that_nobody_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmulationError, match="there are 360, 2880"):
        generate(tmp_path, 720)
    with pytest.raises(EmulationError, match="fewer than the model's 128"):
        generate(tmp_path, 360, 64)
