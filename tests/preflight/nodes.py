"""A node's /dev and /sys as the amdgpu driver writes them.

No MI355X was at hand to record. File names and formats are the driver's; the values are those that
owners of MI350 and MI300X nodes published: gfx_target_version 90500, MEC firmware 41 (0x29).
"""

from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
VRAM_BYTES = 309_220_868_096
GOOD = {
    "VLLM_ROCM_USE_AITER": "1",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """One PCI device; `parts` KFD nodes share it, as after CPX."""

    gfx: int = 90500
    device_id: int = 0x75A3
    compute: str | None = "SPX"
    memory: str | None = "NPS1"
    vram: int | None = VRAM_BYTES
    used: int = 300 * 2**20
    mec: int | None = 41
    kfd_mec: int | None = 41
    parts: int = 1


def node(root: Path, *cards: Card) -> Path:
    """Write the tree below `root`: a CPU, then the cards; the driver's file and render nodes."""
    _write(root / "dev/kfd", "")
    (root / "dev/dri").mkdir()
    (root / "dev/shm").mkdir()
    topology = root / "sys/class/kfd/kfd/topology/nodes"
    _write(topology / "0/properties", "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0\n")
    number = 0
    for index, card in enumerate(cards):
        bus = 0x15 + 16 * index
        _device(root / f"sys/bus/pci/devices/0000:{bus:02x}:00.0", card)
        for part in range(card.parts):
            number += 1
            minor = 127 + number
            _write(root / f"dev/dri/renderD{minor}", "")
            lines = {
                "cpu_cores_count": 0,
                "simd_count": 1024 // card.parts,
                "gfx_target_version": card.gfx,
                "vendor_id": 4098,
                "device_id": card.device_id,
                "location_id": part << 28 | bus << 8,
                "domain": 0,
                "drm_render_minor": minor,
                "unique_id": 10838076764495710945 + index,
                "num_xcc": 8 // card.parts,
            }
            if card.kfd_mec is not None:
                lines["fw_version"] = card.kfd_mec
            text = "".join(f"{key} {value}\n" for key, value in lines.items())
            _write(topology / f"{number}/properties", text)
    return root


def _device(folder: Path, card: Card) -> None:
    files = {
        "current_compute_partition": card.compute,
        "current_memory_partition": card.memory,
        "mem_info_vram_total": card.vram,
        "mem_info_vram_used": None if card.vram is None else card.used,
        "fw_version/mec_fw_version": None if card.mec is None else f"0x{card.mec:08x}",
    }
    for name, value in files.items():
        if value is not None:
            _write(folder / name, f"{value}\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
