"""The real pad code of unmodified vLLM releases, with and without the plugin."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from images import pins
from moe_serve.cli.main import main
from moe_serve.padding.aiter_eras import aiter_build
from moe_serve.padding.contract import Call, PaddingPolicy, choose
from moe_serve.padding.models import BUILT_IN
from moe_serve.padding.shapes import Activation, Parallelism, Quant, shard
from moe_serve.padding.vllm_eras import vllm_build

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

SERVING = Path(__file__).parents[2] / "images" / "serving"
KNOWN = pins.load(pins.PINS.read_text("utf-8"))
VERSIONS = os.environ.get("MOE_SERVE_MATRIX", KNOWN["matrix_some"]).split(",")
DEPLOYMENTS = {
    "tp1": Parallelism(tp=1),
    "tp2": Parallelism(tp=2),
    "tp4": Parallelism(tp=4),
    "tp8": Parallelism(tp=8),
    "ep8": Parallelism(tp=8, ep=True),
}


def pads(vllm: str, aiter: str, policy: PaddingPolicy) -> dict[str, list[int]]:
    """What the contract says that each deployment sends."""
    dims, build = BUILT_IN["gpt-oss-120b"], vllm_build(vllm)
    align = build.eras[-1].alignment(Quant.W4A16, dims.activation)
    found = {}
    for name, parallel in DEPLOYMENTS.items():
        part = shard(dims, parallel, align=align)
        sent = choose(Call(part=part, vllm=build, aiter=aiter_build(aiter)), policy)
        found[name] = [sent.hidden, sent.intermediate]
    return found


def run(
    vllm: str, aiter: str, folder: Path, *flags: str, **variables: str
) -> dict[str, list[int] | str]:
    """Every case in a process of its own, over the unpacked release."""
    (folder / f"amd_aiter-{aiter}.dist-info").mkdir()
    metadata = folder / f"amd_aiter-{aiter}.dist-info" / "METADATA"
    metadata.write_text(f"Metadata-Version: 2.1\nName: amd-aiter\nVersion: {aiter}\n")
    release = Path(os.environ["MOE_SERVE_VLLM_WHEELS"]) / vllm
    assert release.is_dir(), f"{release} is missing: make test-serving fetches it"
    path = os.pathsep.join(map(str, (release, SERVING / "recording_aiter", folder)))
    result = subprocess.run(
        [os.environ["MOE_SERVE_VLLM_PYTHON"], str(SERVING / "cases.py"), *flags],
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            # Beside nobody's sources, and compiled once for all processes of this run.
            "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode"),
            "PYTHONPATH": path,
            "MOE_SERVE_RECORD_DIR": str(folder / "records"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    received: dict[str, list[int] | str] = json.loads(result.stdout.splitlines()[-1])
    return received


def aiter_for(vllm: str) -> str:
    """An AITER whose layout this vLLM serves rightly."""
    return "0.1.16" if vllm_build(vllm).eras[0].sends_gate_mode else "0.1.13.post1"


@pytest.mark.parametrize("vllm", VERSIONS)
def test_without_the_plugin_a_release_sends_what_the_contract_says(
    vllm: str, tmp_path: Path
) -> None:
    received = run(vllm, aiter_for(vllm), tmp_path)

    assert received == pads(vllm, aiter_for(vllm), PaddingPolicy.UPSTREAM)


@pytest.mark.parametrize("vllm", VERSIONS)
def test_with_the_plugin_it_sends_aligned_pads(vllm: str, tmp_path: Path) -> None:
    received = run(vllm, aiter_for(vllm), tmp_path, "--plugin")

    assert received == pads(vllm, aiter_for(vllm), PaddingPolicy.ALIGNED)


@pytest.mark.parametrize("vllm", VERSIONS)
def test_the_loader_pads_to_what_the_contract_says(vllm: str) -> None:
    release = Path(os.environ["MOE_SERVE_VLLM_WHEELS"]) / vllm
    result = subprocess.run(
        [os.environ["MOE_SERVE_VLLM_PYTHON"], "-B", str(Path(__file__).with_name("alignments.py"))],
        env={**os.environ, "PYTHONPATH": str(release)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])

    era = vllm_build(vllm).eras[0]
    assert found
    for name, padded in found.items():
        quant, activation = name.split()
        align = era.alignment(Quant(quant), Activation(activation))
        assert padded == [align.hidden, align.intermediate], name


def test_off_is_stock_vllm(tmp_path: Path) -> None:
    received = run(
        VERSIONS[-1], aiter_for(VERSIONS[-1]), tmp_path, "--plugin", MOE_SERVE_PADDING="off"
    )

    assert received == pads(VERSIONS[-1], aiter_for(VERSIONS[-1]), PaddingPolicy.UPSTREAM)


def test_upstream_pads_that_lose_neurons_are_refused_and_say_what_to_set(tmp_path: Path) -> None:
    received = run(
        VERSIONS[-1], aiter_for(VERSIONS[-1]), tmp_path, "--plugin", MOE_SERVE_PADDING="upstream"
    )

    refused = received["tp1"]
    assert isinstance(refused, str)
    wanted = ["PaddingUnsafe", "192 of 2880", "cktile", "MOE_SERVE_PADDING=aligned"]
    wanted += ["MOE_SERVE_MAX_NEURON_LOSS=0.07", "MOE_SERVE_PADDING=off"]
    assert [word for word in wanted if word not in refused] == []
    assert received["tp4"] == [128, 0]


def test_a_declared_budget_lets_them_pass(tmp_path: Path) -> None:
    received = run(
        VERSIONS[-1],
        aiter_for(VERSIONS[-1]),
        tmp_path,
        "--plugin",
        MOE_SERVE_PADDING="upstream",
        MOE_SERVE_MAX_NEURON_LOSS="0.07",
    )

    assert received["tp1"] == [128, 384]


def test_a_layout_that_aiter_would_misread_is_refused_under_every_policy(tmp_path: Path) -> None:
    received = run(
        "0.22.1", "0.1.14", tmp_path, "--plugin",
        MOE_SERVE_PADDING="zero", MOE_SERVE_MAX_NEURON_LOSS="1",
    )  # fmt: skip

    assert all("another row order" in str(refused) for refused in received.values())


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "moe_serve.vllm_plugin":
            raise ImportError("a broken installation")
sys.meta_path.insert(0, Block())
"""


def test_vllms_own_loader_loads_the_plugin(tmp_path: Path) -> None:
    received = run("0.32.0", "0.1.16", tmp_path, "--vllm-loads")

    assert received == pads("0.32.0", "0.1.16", PaddingPolicy.ALIGNED)


@pytest.mark.parametrize("how", ["left out", "import fails"])
def test_a_plugin_that_is_not_loaded_leaves_upstream_pads_and_no_proof(
    how: str, tmp_path: Path
) -> None:
    variables = {"VLLM_PLUGINS": "another"} if how == "left out" else {}
    if how == "import fails":
        (tmp_path / "sitecustomize.py").write_text(BLOCKED)

    received = run("0.32.0", "0.1.16", tmp_path, "--vllm-loads", **variables)

    # vLLM serves on, lossy pads and all: only the missing proof tells.
    assert received == pads("0.32.0", "0.1.16", PaddingPolicy.UPSTREAM)
    assert main(["preflight", "--proof", "--record-dir", str(tmp_path / "records")]) == 1
