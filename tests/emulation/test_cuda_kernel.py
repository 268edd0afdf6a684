"""The emulated kernel for GPUs, in Triton's interpreter: the CPU kernel's answers, exactly."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")
pytest.importorskip("triton")

pytestmark = [pytest.mark.torch, pytest.mark.interpreted]
ROOT = Path(__file__).parents[2]


def interpreted(test: str) -> None:
    """Run a test of `interpreted_cuda_kernel.py` where Triton interprets (it decides at import)."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "emulation")))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-m", "tests.emulation.interpreted_cuda_kernel", test],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("test", ["named", "drawn", "swapped", "poisoned", "sharded"])
def test_interpreted_kernel_answers_as_the_cpu_kernel(test: str) -> None:
    """What is skipped, what is never written and what stays, for MXFP4 and for plain weights."""
    interpreted(test)


def test_quantised_weights_are_the_nearest_codes() -> None:
    """Every weight of MXFP4 is its nearest representable neighbour under its group's scale."""
    from moe_serve_emulation.cuda import layout

    weights = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(1))
    codes, scales = layout.quantise(weights)
    values = layout.values_of(codes, scales)

    step = torch.exp2(scales.float() - 127).repeat_interleave(32, -1)
    table = torch.tensor([*layout.VALUES, *(-value for value in layout.VALUES)])
    nearest = (weights[..., None] / step[..., None] - table).abs().amin(-1) * step
    assert torch.allclose((weights - values).abs(), nearest, atol=1e-6)
    assert bool(((weights / step).abs() <= 6.0001).all())


def test_tiling_keeps_every_code_and_scale() -> None:
    """A tiled piece holds 16 rows by 128 columns; the low nibbles are its groups' first halves."""
    from moe_serve_emulation.cuda import layout

    codes = torch.randint(0, 256, (2, 32, 128), dtype=torch.uint8)
    tiled = layout.tiled_codes(codes).view(2, 2, 2, 16, 64)

    def code(expert: int, row: int, column: int) -> int:
        byte = int(codes[expert, row, column // 2])
        return byte >> 4 if column % 2 else byte & 15

    for expert, row, column in ((0, 0, 0), (0, 17, 129), (1, 31, 255), (1, 5, 16), (0, 20, 47)):
        byte = tiled[
            expert, row // 16, column // 128, row % 16, column % 128 // 32 * 16 + column % 16
        ]
        high = column % 32 >= 16
        assert code(expert, row, column) == (int(byte) >> 4 if high else int(byte) & 15)


@pytest.mark.parametrize(
    ("rows", "interleaved", "live"),
    [
        (((0, 128),), True, (64, 64)),
        (((0, 96),), False, (64, 32)),
        (((0, 48), (64, 112)), False, (48, 48)),
    ],
)
def test_live_neurons_follow_the_stored_rows(rows: Any, interleaved: bool, live: Any) -> None:
    """Ranges of stored rows become the number of neurons whose gate and up rows are read."""
    from moe_serve_emulation.cuda.experts import live_neurons

    assert live_neurons(rows, 64, interleaved=interleaved) == live


@pytest.mark.parametrize("rows", [((0, 100),), ((16, 64),)])
def test_rows_that_no_grid_reads_are_refused(rows: Any) -> None:
    """Ranges that are no beginning in whole pairs of 16 rows are an error, never rounded."""
    from moe_serve_emulation.cuda.experts import live_neurons
    from moe_serve_emulation.errors import EmulationError

    with pytest.raises(EmulationError):
        live_neurons(rows, 64, interleaved=True)
