"""The marker kernels as compilers make them: for CDNA4 without such a device, and for CUDA."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.torch

_ARGUMENTS = {
    "state": "*i64", "constants": "*i64", "published": "i64", "number": "i32", "key": "i64",
    "tokens": "i32", "window": "i32", "window_key": "i64",
    "WINDOW": "constexpr", "SLOTS": "constexpr", "BACKEND": "constexpr",
}  # fmt: skip
_VARIANTS = [
    ("start_marker", {"WINDOW": False}),
    ("start_marker", {"WINDOW": True}),
    ("stop_marker", {"SLOTS": 1}),
    ("stop_marker", {"SLOTS": 2}),
]


def compiled(name: str, constants: dict[str, Any], backend: str) -> str:
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from moe_serve.vllm_plugin.markers import kernels

    kernel = getattr(kernels, name)
    signature = {argument: _ARGUMENTS[argument] for argument in kernel.arg_names}
    target = GPUTarget("hip", "gfx950", 64) if backend == "hip" else GPUTarget("cuda", 90, 32)
    source = ASTSource(kernel, signature, constexprs={**constants, "BACKEND": backend})
    built = build(source, target=target, options={"num_warps": 1})
    return str(built.asm["amdgcn" if backend == "hip" else "ptx"])


def instructions(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith((".", ";", "//"))]


@pytest.mark.parametrize(("name", "constants"), _VARIANTS)
def test_on_cdna4_a_marker_is_one_wave_that_waits_for_its_clock(
    name: str, constants: dict[str, Any]
) -> None:
    text = compiled(name, constants, "hip")
    code = instructions(text)
    clocks = [index for index, line in enumerate(code) if line.startswith("s_memrealtime")]

    assert len(clocks) == 1
    assert code[clocks[0] + 1] == "s_waitcnt lgkmcnt(0)"
    assert not [line for line in code if line.startswith(("s_barrier", "s_memtime", "buffer_wbl2"))]
    assert re.findall(r"\.max_flat_workgroup_size: (\d+)", text) == ["64"]
    assert re.findall(r"\.wavefront_size: (\d+)", text) == ["64"]
    assert re.findall(r"\.(?:sgpr|vgpr)_spill_count: (\d+)", text) == ["0", "0"]


@pytest.mark.parametrize(("name", "constants"), _VARIANTS)
def test_on_cuda_a_marker_reads_the_clock_once_without_barrier_or_fence(
    name: str, constants: dict[str, Any]
) -> None:
    text = compiled(name, constants, "cuda")

    assert text.count("%globaltimer") == 1
    assert not re.search(r"\b(bar\.sync|barrier|membar|fence)\b", text)
    assert re.search(r"\.reqntid 32\b", text)


def test_the_stop_marker_stores_a_cell_in_one_instruction_a_lane() -> None:
    code = instructions(compiled("stop_marker", {"SLOTS": 1}, "hip"))
    stores = [line for line in code if re.match(r"(global|buffer|flat)_store", line)]

    assert len(stores) == 2  # the slot's row, and the record's cell
