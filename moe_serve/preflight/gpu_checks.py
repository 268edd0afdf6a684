"""Pure: are these GPUs the expected ones, free, and set up as RCCL wants them."""

from collections.abc import Iterator, Mapping, Sequence

from moe_serve.preflight.checks import Check, fail, ok, skip
from moe_serve.preflight.expected_gpus import Expected
from moe_serve.preflight.firmware import BITS
from moe_serve.preflight.gpus import Gpu
from moe_serve.preflight.known_bad import GFX

NAMES = ("gpu", "partition", "vram", "firmware")
_GIB = 2**30
_VRAM_USED_SHARE = 0.05
SCRATCH = "HSA_NO_SCRATCH_RECLAIM"
# RCCL's own rule, rccl_wrap.cc validHsaScratchEnvSetting: each target counts by itself.
_ENOUGH: Mapping[str, int] = {GFX: 24, "gfx942": 177}


def check_gpus(
    gpus: Sequence[Gpu],
    *,
    wanted: int,
    firmware: int | None,
    environment: Mapping[str, str],
    expected: Expected | None = None,
) -> Iterator[Check]:
    """Every question about the GPUs. `firmware`: what a tool told, for those that /sys hides.

    `expected`: the card and its modes; None: whole MI355X.
    """
    expected = expected or Expected()
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
        yield _target(gpus, expected)
    yield _partition(gpus, expected)
    yield _vram(gpus, expected)
    yield _firmware(gpus, firmware, environment)


def _target(gpus: Sequence[Gpu], expected: Expected) -> Check:
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


def _partition(gpus: Sequence[Gpu], expected: Expected) -> Check:
    modes = [(gpu, (gpu.compute_partition, gpu.memory_partition)) for gpu in gpus]
    split = [
        f"{gpu.render_node} ({gpu.pci}) is {'/'.join(part or 'unknown' for part in mode)}"
        for gpu, mode in modes
        if mode not in expected.modes
    ]
    accepted = ["/".join(mode) for mode in expected.modes]
    if split and expected.modes == Expected().modes:
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


def _vram(gpus: Sequence[Gpu], expected: Expected) -> Check:
    wrong = [text for text in (_vram_fault(gpu, expected) for gpu in gpus) if text]
    if wrong:
        return fail("vram", "; ".join(wrong))
    return ok("vram", f"{min(gpu.vram_bytes or 0 for gpu in gpus) / _GIB:.0f} GiB each, free")


def _vram_fault(gpu: Gpu, expected: Expected) -> str | None:
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


def _firmware(gpus: Sequence[Gpu], from_tool: int | None, environment: Mapping[str, str]) -> Check:
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
