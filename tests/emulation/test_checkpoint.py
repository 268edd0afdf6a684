"""The seeded checkpoint: the same bytes for the same spec, loadable without a network."""

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

from moe_serve_emulation.checkpoint import CheckpointSpec, generate

pytestmark = pytest.mark.torch

SMALL = CheckpointSpec(
    layers=2, experts=4, top_k=2, hidden=128, intermediate=96, heads=2, head_dim=32, vocab=64
)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_spec_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (generate(tmp_path / name, SMALL) for name in "ab")

    assert digest(first) == digest(second)


def test_generate_twice_makes_one_whole_checkpoint(tmp_path: Path) -> None:
    made = generate(tmp_path, SMALL)
    before = (made / "model.safetensors").stat().st_mtime_ns

    assert generate(tmp_path, SMALL) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [made]


def test_another_seed_is_another_checkpoint(tmp_path: Path) -> None:
    other = CheckpointSpec(**{**{f: getattr(SMALL, f) for f in SMALL.__slots__}, "seed": 1})

    assert generate(tmp_path, SMALL) != generate(tmp_path, other)


def test_weights_lie_as_vllms_unquantised_loader_reads_them(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    made = generate(tmp_path, SMALL)

    tensors = safetensors.load_file(made / "model.safetensors")

    at = "model.layers.1.mlp.experts"
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}
    assert tuple(tensors[f"{at}.gate_up_proj"].shape) == (4, 128, 2 * 96)
    assert tuple(tensors[f"{at}.down_proj"].shape) == (4, 96, 128)
    assert json.loads((made / "config.json").read_text())["model_type"] == "gpt_oss"


def test_transformers_loads_the_tokenizer_offline(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    tokenizer = transformers.AutoTokenizer.from_pretrained(generate(tmp_path, SMALL))

    assert tokenizer.decode(tokenizer("w3 w60 w17")["input_ids"]) == "w3 w60 w17"
