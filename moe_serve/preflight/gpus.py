"""The GPUs that this process may use, as the kernel's files tell.

The kernel shows every process the topology, but opens a GPU's own entry only to those whose
container was given it. No library of ROCm is asked: this runs before the model, in any image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_NODES = "sys/class/kfd/kfd/topology/nodes"
_PCI = "sys/bus/pci/devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU or partition of one; None: the kernel does not tell.

    `render_node` is `renderD<minor>`; `mec_firmware` the
    version of the compute engine's microcode, as `rocm-smi --showfw` counts.
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
            gfx=_target(gfx),
            pci=pci,
            compute_partition=_text(device / "current_compute_partition"),
            memory_partition=_text(device / "current_memory_partition"),
            vram_bytes=_number(device / "mem_info_vram_total"),
            vram_used_bytes=_number(device / "mem_info_vram_used"),
            mec_firmware=_firmware(device, properties),
        )


def _properties(node: Path) -> dict[str, int]:
    pairs = (line.split() for line in (_text(node / "properties") or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _address(properties: dict[str, int]) -> str:
    # The upper bits of a partition's location hold its number (drivers/gpu/drm/amd/amdkfd).
    location = properties.get("location_id", 0) & 0xFFFF
    bus, device, function = location >> 8, location >> 3 & 0x1F, location & 7
    return f"{properties.get('domain', 0):04x}:{bus:02x}:{device:02x}.{function}"


def _target(version: int) -> str:
    """90500 is gfx950, 90010 is gfx90a: two decimal digits each, the last two told in hex."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _firmware(device: Path, properties: dict[str, int]) -> int | None:
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
