"""The GPUs that this process may use: are they the expected ones, free, and set up for RCCL.

The kernel shows every process the topology, but opens a GPU's own entry only to those whose
container was given it. ROCm's libraries are not used: this runs before the model, in any image.
Where /sys hides the compute engine's firmware, AMD's command-line tools are asked; both print
RCCL's number, which is the lower 11 bits of the version.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.preflight.expected_gpus import ExpectedGpus
from moe_serve.preflight.known_bad import GFX

_NODES = "sys/class/kfd/kfd/topology/nodes"
_PCI = "sys/bus/pci/devices"
CHECK_NAMES = ("gpu", "partition", "vram", "firmware")
_GIB = 2**30
_VRAM_USED_SHARE = 0.05
SCRATCH = "HSA_NO_SCRATCH_RECLAIM"
# RCCL's own rule, rccl_wrap.cc validHsaScratchEnvSetting: each target counts by itself.
_ENOUGH: Mapping[str, int] = {GFX: 24, "gfx942": 177}
_MEC_BITS = 0x7FF
_TOOL_SECONDS = 20
_TOOLS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("rocm-smi", "--showfw"), re.compile(r"\bMEC firmware version:\s*(\w+)")),
    (("amd-smi", "firmware"), re.compile(r"FW_ID:\s*CP_MEC1\s+FW_VERSION:\s*(\w+)")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU or a partition of one; a field is None where the kernel does not expose it.

    `render_node` is `renderD<minor>`; `mec_firmware` is the version of the compute engine's
    microcode, in `rocm-smi --showfw`'s numbering.
    """

    render_node: str
    gfx: str | None
    pci: str
    compute_partition: str | None
    memory_partition: str | None
    vram_bytes: int | None
    vram_used_bytes: int | None
    mec_firmware: int | None


def read_gpus(root: Path) -> tuple[Gpu, ...]:
    """Every GPU that the kernel driver lets this process see below `root`, by render node."""
    return tuple(sorted(_read(root), key=lambda gpu: int(gpu.render_node.removeprefix("renderD"))))


def target(gpus: Sequence[Gpu]) -> str | None:
    """The instruction set of the first; None without a GPU."""
    return gpus[0].gfx if gpus else None


def _read(root: Path) -> Iterator[Gpu]:
    for node in root.joinpath(_NODES).glob("*"):
        properties = _properties(node)
        gfx, minor = properties.get("gfx_target_version"), properties.get("drm_render_minor")
        if not gfx or minor is None or minor < 0:  # a CPU, or a GPU of another container
            continue
        pci = _address(properties)
        device = root / _PCI / pci
        yield Gpu(
            render_node=f"renderD{minor}",
            gfx=_gfx_name(gfx),
            pci=pci,
            compute_partition=_text(device / "current_compute_partition"),
            memory_partition=_text(device / "current_memory_partition"),
            vram_bytes=_number(device / "mem_info_vram_total"),
            vram_used_bytes=_number(device / "mem_info_vram_used"),
            mec_firmware=_read_firmware(device, properties),
        )


def _properties(node: Path) -> dict[str, int]:
    pairs = (line.split() for line in (_text(node / "properties") or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _address(properties: dict[str, int]) -> str:
    # The upper bits of a partition's location hold its number (drivers/gpu/drm/amd/amdkfd).
    location = properties.get("location_id", 0) & 0xFFFF
    bus, device, function = location >> 8, location >> 3 & 0x1F, location & 7
    return f"{properties.get('domain', 0):04x}:{bus:02x}:{device:02x}.{function}"


def _gfx_name(version: int) -> str:
    """90500 is gfx950, 90010 is gfx90a: two decimal digits each, the last two told in hex."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _read_firmware(device: Path, properties: dict[str, int]) -> int | None:
    # The same number in both places; `rocm-smi` reads the first.
    found = _number(device / "fw_version" / "mec_fw_version")
    return properties.get("fw_version") if found is None else found


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "", 0)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return None


def run_tool(command: Sequence[str]) -> str:
    """What a tool prints; nothing if it is absent, hangs or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TOOL_SECONDS,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def firmware_from_tools(run: Callable[[Sequence[str]], str] = run_tool) -> int | None:
    """The lowest version that the first tool that knows tells of any GPU; None: neither knows."""
    for command, pattern in _TOOLS:
        found = [_version(text) for text in pattern.findall(run(command))]
        known = [number & _MEC_BITS for number in found if number is not None]
        if known:
            return min(known)
    return None


def _version(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def check_gpus(
    gpus: Sequence[Gpu],
    *,
    wanted: int,
    firmware: int | None,
    environment: Mapping[str, str],
    expected: ExpectedGpus | None = None,
) -> Iterator[PreflightCheck]:
    """Every question about the GPUs. `firmware`: what a tool told, for those that /sys hides.

    `expected`: the card and its modes; None: whole MI355X.
    """
    expected = expected or ExpectedGpus()
    if len(gpus) < wanted:
        yield fail(
            "gpu",
            f"the driver shows {len(gpus)} GPUs to this container, {wanted} are needed; request "
            "as many as the model is spread over, or give --no-gpu where none is meant",
        )
    if not gpus:
        yield from (skip(name, "no GPU") for name in CHECK_NAMES[1:])
        return
    if len(gpus) >= wanted:
        yield _check_target(gpus, expected)
    yield _check_partition(gpus, expected)
    yield _check_vram(gpus, expected)
    yield _check_firmware(gpus, firmware, environment)


def _check_target(gpus: Sequence[Gpu], expected: ExpectedGpus) -> PreflightCheck:
    product = expected.product
    others = [f"{gpu.render_node} is {gpu.gfx}" for gpu in gpus if gpu.gfx != product.gfx]
    if others:
        reason = f"AITER's MXFP4 experts and these pads are for {GFX}"
        if product.gfx != GFX:
            reason = f"--product {product.name} is {product.gfx}"
        card, virtual = product.device_ids
        return fail(
            "gpu",
            f"{', '.join(others)}; {reason}: select nodes by amd.com/gpu.device-id "
            f'"{card}" ({product.name}) or "{virtual}" (its virtual function)',
        )
    return ok("gpu", f"{len(gpus)} x {product.gfx}")


def _check_partition(gpus: Sequence[Gpu], expected: ExpectedGpus) -> PreflightCheck:
    modes = [(gpu, (gpu.compute_partition, gpu.memory_partition)) for gpu in gpus]
    split = [
        f"{gpu.render_node} ({gpu.pci}) is {'/'.join(part or 'unknown' for part in mode)}"
        for gpu, mode in modes
        if mode not in expected.modes
    ]
    accepted = ["/".join(mode) for mode in expected.modes]
    if split and expected.modes == ExpectedGpus().modes:
        return fail(
            "partition",
            f"{', '.join(split)}; the model needs whole GPUs: on the node, "
            "amd-smi set --compute-partition SPX --memory-partition NPS1",
        )
    if split:
        return fail(
            "partition",
            f"{', '.join(split)}; accepted is {' or '.join(accepted)}: set the node's mode with "
            "amd-smi, or name its mode with --partition",
        )
    return ok("partition", ", ".join(sorted({"/".join(map(str, mode)) for _, mode in modes})))


def _check_vram(gpus: Sequence[Gpu], expected: ExpectedGpus) -> PreflightCheck:
    wrong = [text for text in (_vram_fault(gpu, expected) for gpu in gpus) if text]
    if wrong:
        return fail("vram", "; ".join(wrong))
    return ok("vram", f"{min(gpu.vram_bytes or 0 for gpu in gpus) / _GIB:.0f} GiB each, free")


def _vram_fault(gpu: Gpu, expected: ExpectedGpus) -> str | None:
    total, used = gpu.vram_bytes, gpu.vram_used_bytes
    if total is None or used is None:
        return f"{gpu.render_node}: the driver tells no memory size; see the node's amdgpu driver"
    if total < expected.vram_bytes(gpu.compute_partition):
        product = expected.product
        return (
            f"{gpu.render_node} has {total / _GIB:.0f} GiB, "
            f"an {product.name} {product.memory_gb} GB; "
            "see whether it is partitioned, or another card"
        )
    if used > total * _VRAM_USED_SHARE:
        return (
            f"{gpu.render_node}: {used / _GIB:.0f} of {total / _GIB:.0f} GiB are taken already; "
            "another process holds it: see amd-smi process on the node"
        )
    return None


def _check_firmware(
    gpus: Sequence[Gpu], from_tool: int | None, environment: Mapping[str, str]
) -> PreflightCheck:
    versions = [
        from_tool if gpu.mec_firmware is None else gpu.mec_firmware & _MEC_BITS for gpu in gpus
    ]
    known = [version for version in versions if version is not None]
    lowest = min(known) if len(known) == len(versions) else None
    enough = min((_ENOUGH.get(gpu.gfx or "", _ENOUGH[GFX]) for gpu in gpus), default=_ENOUGH[GFX])
    told = "MEC firmware unknown" if lowest is None else f"MEC firmware {lowest}"
    if environment.get(SCRATCH) == "1":
        return ok("firmware", f"{told}, {SCRATCH}=1")
    if lowest is not None and lowest >= enough:
        return ok("firmware", f"{told}, {enough} is enough")
    return fail(
        "firmware",
        f"{told}, {enough} or newer is known to be safe: set {SCRATCH}=1, or renew the firmware",
    )
