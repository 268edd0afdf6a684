"""The machine under the demo: its cores, memory, disk and ports, and processes on cores."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

from moe_serve_demo.errors import DemoError

GIB = 2**30
_NICE = 19
_PR_SET_PDEATHSIG = 1


def two_cores() -> tuple[int, int]:
    """The numbers of the first two cores that this process may use.

    Raises:
        DemoError: there are fewer.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise DemoError("this process may use one processor core: the demo needs two, one per arm")
    return cores[0], cores[1]


def require_memory(needed_bytes: int) -> None:
    """Check that so many bytes of memory are available.

    Raises:
        DemoError: fewer are, by the kernel's estimate (`MemAvailable`) or the cgroup's limit.
    """
    free = available_memory()
    if free < needed_bytes:
        raise DemoError(
            f"{needed_bytes / GIB:.0f} GiB of free memory are needed for two servers, "
            f"{free / GIB:.1f} GiB are free; end other programs and try again"
        )


def available_memory() -> int:
    """Bytes that can be allocated: the smaller of the system's and the cgroup's figure."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines()
    )
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such controller, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return free


def require_disk(folder: Path, needed_bytes: int) -> None:
    """Check that so many bytes are free where `folder` is or will be.

    Raises:
        DemoError: fewer are.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise DemoError(
            f"{folder}: {needed_bytes / GIB:.1f} GiB of disk are needed for the model, "
            f"{free / GIB:.1f} GiB are free; free some or name another folder with --cache"
        )


def require_ports(ports: Iterable[int]) -> None:
    """Check that nothing listens on the loopback ports.

    Raises:
        DemoError: one is in use.
    """
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise DemoError(
                    f"port {port} is in use ({error.strerror}); name another with --port"
                ) from error


def pin(pids: Iterable[int], cores: Collection[int]) -> None:
    """Pin every thread of the processes to `cores`; ended processes are left out."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)


def yield_to(worker: int, others: Iterable[int]) -> None:
    """Lower the priority of all processes but the worker, which shares its core with them.

    vLLM's engine spins while it waits for its worker; on the same core that takes a third of the
    worker's time, a varying share in each step.
    """
    for pid in others:
        if pid != worker:
            with contextlib.suppress(FileNotFoundError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(ProcessLookupError):
                        os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)


def descendants(pid: int) -> tuple[int, ...]:
    """`pid` and the ids of all its running descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name may hold spaces and brackets: the parent stands after the last bracket.
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")
                children.setdefault(int(fields[2].split()[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return tuple(found)


def die_with_parent() -> None:
    """Have the kernel end this child when its parent ends, so that a killed demo leaves nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
