"""The stand-in for AITER dispatches to the kernel that the environment names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

from moe_serve_emulation import STANDIN

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
# One rank's neurons at TP=1, padded to 3072, and the pads that are true: 192 of them.
CALL = """
import torch
from aiter import ActivationType, QuantType
from aiter.fused_moe import fused_moe
from aiter.ops.flydsl.moe_common import GateMode
out = fused_moe(
    torch.ones(2, 256), torch.zeros(1, 6144, 256), torch.zeros(1, 256, 3072),
    torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.int32),
    activation=ActivationType.Swiglu, quant_type=QuantType.per_1x32,
    hidden_pad=0, intermediate_pad=192, gate_mode=GateMode.INTERLEAVE.value,
)
print(bool(out.isnan().any()))
"""


@pytest.mark.parametrize(("kernel", "poisoned"), [("cktile", "False"), ("flydsl", "True")])
def test_flydsl_reads_unwritten_columns_and_cktile_does_not(kernel: str, poisoned: str) -> None:
    path = os.pathsep.join((str(STANDIN), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "MOE_SERVE_EMULATE_AITER": kernel}

    said = subprocess.run(
        [sys.executable, "-c", CALL], env=environment, check=True, capture_output=True, text=True
    )

    assert said.stdout.strip() == poisoned
