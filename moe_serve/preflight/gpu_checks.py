"""Pure: are these GPUs whole MI355X, free, and set up as RCCL wants them."""

from collections.abc import Iterator, Mapping, Sequence

from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.preflight.firmware import BITS
from moe_serve.preflight.gpus import Gpu
from moe_serve.preflight.known_bad import GFX

NAMES = ("gpu", "partition", "vram", "firmware")
_GIB = 2**30
# An MI355X has 288 GB of HBM3E; the driver keeps a little.
_VRAM_BYTES = 270 * _GIB
_VRAM_USED_SHARE = 0.05
_WHOLE = ("SPX", "NPS1")
SCRATCH = "HSA_NO_SCRATCH_RECLAIM"
# RCCL's own rule, rccl_wrap.cc validHsaScratchEnvSetting: each target counts by itself.
_ENOUGH: Mapping[str, int] = {GFX: 24, "gfx942": 177}


def check_gpus(
    gpus: Sequence[Gpu], *, wanted: int, firmware: int | None, environment: Mapping[str, str]
) -> Iterator[PreflightCheck]:
    """Every question about the GPUs. `firmware`: what a tool told, for those that /sys hides."""
    if len(gpus) < wanted:
        yield fail(
            "gpu",
            f"the driver shows {len(gpus)} GPUs to this container, {wanted} are needed; request "
            "as many as the model is spread over, or give --no-gpu where none is meant",
        )
    if not gpus:
        yield from (skip(name, "no GPU") for name in NAMES[1:])
        return
    if len(gpus) >= wanted:
        yield _target(gpus)
    yield _partition(gpus)
    yield _vram(gpus)
    yield _firmware(gpus, firmware, environment)


def _target(gpus: Sequence[Gpu]) -> PreflightCheck:
    others = [f"{gpu.render_node} is {gpu.gfx}" for gpu in gpus if gpu.gfx != GFX]
    if others:
        return fail(
            "gpu",
            f"{', '.join(others)}; AITER's MXFP4 experts and these pads are for {GFX}: select "
            'nodes by amd.com/gpu.device-id "75a3" (MI355X) or "75b3" (its virtual function)',
        )
    return ok("gpu", f"{len(gpus)} x {GFX}")


def _partition(gpus: Sequence[Gpu]) -> PreflightCheck:
    modes = [(gpu, (gpu.compute_partition, gpu.memory_partition)) for gpu in gpus]
    split = [
        f"{gpu.render_node} ({gpu.pci}) is {'/'.join(part or 'unknown' for part in mode)}"
        for gpu, mode in modes
        if mode != _WHOLE
    ]
    if split:
        return fail(
            "partition",
            f"{', '.join(split)}; the model needs whole GPUs: on the node, "
            "amd-smi set --compute-partition SPX --memory-partition NPS1",
        )
    return ok("partition", "/".join(_WHOLE))


def _vram(gpus: Sequence[Gpu]) -> PreflightCheck:
    wrong = [text for text in map(_vram_fault, gpus) if text]
    if wrong:
        return fail("vram", "; ".join(wrong))
    return ok("vram", f"{min(gpu.vram_bytes or 0 for gpu in gpus) / _GIB:.0f} GiB each, free")


def _vram_fault(gpu: Gpu) -> str | None:
    total, used = gpu.vram_bytes, gpu.vram_used_bytes
    if total is None or used is None:
        return f"{gpu.render_node}: the driver tells no memory size; see the node's amdgpu driver"
    if total < _VRAM_BYTES:
        return (
            f"{gpu.render_node} has {total / _GIB:.0f} GiB, an MI355X 288 GB; "
            "see whether it is partitioned, or another card"
        )
    if used > total * _VRAM_USED_SHARE:
        return (
            f"{gpu.render_node}: {used / _GIB:.0f} of {total / _GIB:.0f} GiB are taken already; "
            "another process holds it: see amd-smi process on the node"
        )
    return None


def _firmware(
    gpus: Sequence[Gpu], from_tool: int | None, environment: Mapping[str, str]
) -> PreflightCheck:
    versions = [from_tool if gpu.mec_firmware is None else gpu.mec_firmware & BITS for gpu in gpus]
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
