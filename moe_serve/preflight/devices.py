"""The GPU's device files: may this process open them, and if not, which group may."""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_serve.preflight.checks import PreflightCheck, fail, ok

_CGROUP = "the container was not given it; request the GPU's resource (amd.com/gpu) in the pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFile:
    """One file below /dev. `error` is an errno, 0 if it can be opened."""

    path: str
    error: int
    group: int | None = None
    mode: int | None = None


def read_device_files(
    root: Path, open_file: Callable[[Path], None] | None = None
) -> tuple[DeviceFile, ...]:
    """/dev/kfd and every render node below `root`, each opened as ROCm opens it."""
    nodes = sorted(root.joinpath("dev/dri").glob("renderD*"))
    paths = [root / "dev/kfd", *nodes]
    return tuple(_probe(path, root, open_file or _open) for path in paths)


def _open(path: Path) -> None:
    # Opened, not asked with access(2): that does not know the container's device rules.
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def _probe(path: Path, root: Path, open_file: Callable[[Path], None]) -> DeviceFile:
    name, group, mode = f"/{path.relative_to(root)}", None, None
    try:
        found = path.stat()
        group, mode = found.st_gid, stat.S_IMODE(found.st_mode)
        open_file(path)
    except OSError as error:
        return DeviceFile(path=name, error=error.errno or errno.EIO, group=group, mode=mode)
    return DeviceFile(path=name, error=0, group=group, mode=mode)


def check_devices(files: Sequence[DeviceFile], *, wanted: int, who: str) -> PreflightCheck:
    """Whether the driver and at least `wanted` render nodes can be opened by `who`."""
    name = "devices"
    shut = [file for file in files if file.error]
    if shut:
        return fail(name, "; ".join(dict.fromkeys(_shut(file, who) for file in shut)))
    nodes = [file.path for file in files if "renderD" in file.path]
    if len(nodes) < wanted:
        return fail(
            name,
            f"{len(nodes)} render nodes below /dev/dri, {wanted} are needed; request as many GPUs "
            "as the model is spread over",
        )
    return ok(name, f"/dev/kfd and {len(nodes)} render nodes can be opened")


def _shut(file: DeviceFile, who: str) -> str:
    match file.error:
        case errno.ENOENT:
            return f"{file.path} is missing: no amdgpu driver on this node, or {_CGROUP}"
        case errno.EPERM:
            return f"{file.path}: {_CGROUP}"
        case errno.EACCES if file.group is not None and file.mode is not None:
            return (
                f"{file.path} is for group {file.group} (mode {file.mode:04o}) and shut to {who}; "
                f"add {file.group} to the pod's securityContext.supplementalGroups "
                "(gpu.renderGroups in the chart)"
            )
        case _:
            return f"{file.path}: {os.strerror(file.error)}"
