"""Whether this machine can carry a node. Each that fails is one line with what to do about it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .commands import run
from .errors import CommandFailed, NodeError
from .layout import Layout

GIB = 2**30
DISK_BYTES = 5 * GIB
MEMORY_BYTES = 2 * GIB
CNI_PLUGINS = Path("/usr/lib/cni")
PLUGINS = ("bridge", "host-local", "loopback")
HIDDEN = ("/run", "/var/run", "/var/lib", "/var/log")

# The command, and the Debian package that brings it.
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}

# What the node does in its namespaces, tried for real in throw-away ones.
KERNEL = {
    "pid, mount, network, UTS and IPC namespaces": "true",
    "overlay file systems": (
        "mount -t tmpfs tmpfs /run && mkdir /run/a /run/b /run/c /run/d && "
        "mount -t overlay overlay -o lowerdir=/run/a,upperdir=/run/b,workdir=/run/c /run/d"
    ),
    "bridges": "ip link add probe type bridge",
    "veth pairs": "ip link add probe-a type veth peer name probe-b",
    "nftables with address translation": (
        "nft add table ip probe && "
        "nft 'add chain ip probe nat { type nat hook prerouting priority 0; }' && "
        "nft 'add chain ip probe out { type nat hook postrouting priority 100; }' && "
        "nft add rule ip probe out masquerade"
    ),
}


def check(layout: Layout) -> None:
    """Raise unless the machine can carry a node.

    Raises:
        NodeError: one line for each thing that is missing.
    """
    if os.geteuid() != 0:
        raise NodeError("a node needs root: run it with sudo, or point KUBECONFIG at a cluster")
    problems = [*_programs(), *_room(layout)] or [*_kernel(), *_cgroups()]
    if problems:
        raise NodeError("\n".join(problems))


def _programs() -> Iterator[str]:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            yield f"{program}: not on this machine; apt-get install {package}"
    for plugin in PLUGINS:
        if not (CNI_PLUGINS / plugin).exists():
            yield f"{CNI_PLUGINS / plugin}: absent; apt-get install containernetworking-plugins"


def _room(layout: Layout) -> Iterator[str]:
    cache = str(layout.cache)
    if any(cache == folder or cache.startswith(f"{folder}/") for folder in HIDDEN):
        yield f"{cache}: the node hides {', '.join(HIDDEN)} from its parts; name another CACHE"
    existing = next(path for path in (layout.cache, *layout.cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < DISK_BYTES:
        yield (
            f"{cache}: {free / GIB:.1f} GiB of disk are free, a node needs "
            f"{DISK_BYTES / GIB:.0f}; free some, or name another folder with CACHE"
        )
    yield from lacking_memory(MEMORY_BYTES, "a node")


def lacking_memory(needed: int, who: str) -> Iterator[str]:
    """A line if `who` needs more bytes of memory than are available."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if available < needed:
        yield (
            f"memory: {available / GIB:.1f} GiB are free, {who} needs {needed / GIB:.0f}; "
            "end other programs"
        )


def _kernel() -> Iterator[str]:
    for feature, attempt in KERNEL.items():
        try:
            run([*UNSHARE, "sh", "-ec", attempt], seconds=20)
        except CommandFailed as error:
            yield f"this kernel does not give {feature} to root: {error}"


def _cgroups() -> Iterator[str]:
    if not any(Path("/sys/fs/cgroup", name).exists() for name in ("memory", "cgroup.controllers")):
        yield "/sys/fs/cgroup: no memory controller; mount the cgroup file systems"


UNSHARE = ("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
