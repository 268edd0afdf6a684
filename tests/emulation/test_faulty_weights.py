"""The quality benchmark's faults: each is what its name says, in one layer, and nothing else."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

import torch
from moe_serve_emulation.learned.checkpoint import generate
from moe_serve_emulation.learned.models import path
from safetensors.torch import load_file

from benchmarks.faulty_weights import FAULTS, doctored

pytestmark = pytest.mark.torch
EXPERTS = "model.layers.1.mlp.experts."


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_experts_of_one_layer_and_no_shape(fault: str) -> None:
    sound = load_file(path(360))
    wrong = FAULTS[fault](sound)

    changed = {name for name in sound if not torch.equal(sound[name], wrong[name])}
    assert changed and all(name.startswith(EXPERTS) for name in changed)
    assert all(sound[name].shape == wrong[name].shape for name in sound)


def test_swapped_experts_are_swapped_twice_back() -> None:
    sound = load_file(path(360))
    again = FAULTS["swapped"](FAULTS["swapped"](sound))
    assert all(torch.equal(sound[name], again[name]) for name in sound)


def test_an_exponent_is_a_factor_of_two_in_one_expert() -> None:
    sound, name = load_file(path(360)), f"{EXPERTS}down_proj"
    wrong = FAULTS["off-scale"](sound)[name]
    torch.testing.assert_close(wrong[0], sound[name][0] * 2, rtol=0, atol=0)
    torch.testing.assert_close(wrong[1], sound[name][1], rtol=0, atol=0)


def test_a_doctored_folder_differs_in_its_weights_alone(tmp_path: Path) -> None:
    sound, made = generate(tmp_path, 360), doctored(tmp_path, 360, "swapped")
    for file in sound.iterdir():
        same = file.read_bytes() == (made / file.name).read_bytes()
        assert same == (file.name != "model.safetensors"), file.name
