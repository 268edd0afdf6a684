"""The node's own namespaces and cgroup: made at the start, gone at the end.

Everything that a node leaves on a machine otherwise (mounts, interfaces, rules, ports, settings of
the network) belongs to namespaces that die with their last process, however they end.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .commands import run
from .errors import CommandFailed, NodeError
from .layout import REPOSITORY, Addresses, Layout
from .preconditions import UNSHARE
from .waiting import wait

NODE_NAME = "mi355x-0"
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The living namespaces of a node, known by their first process."""

    init: int

    @property
    def processes(self) -> Path:
        """The node's /proc, seen from outside."""
        return Path(f"/proc/{self.init}/root/proc")

    def command(self, *words: str | Path) -> list[str]:
        """`words`, to be run inside."""
        enter = ["nsenter", f"--target={self.init}", "-m", "-n", "-p", "-u", "-i", "--"]
        return [*enter, *map(str, words)]

    def run(self, *words: str | Path, seconds: float = 60) -> str:
        """Run a command inside; see `commands.run`."""
        return run(self.command(*words), seconds=seconds)


def find(layout: Layout) -> Namespaces | None:
    """The namespaces of the node that runs now, if one does."""
    try:
        init = int((layout.state / "init.pid").read_text("ascii"))
        words = Path(f"/proc/{init}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    ours = str(layout.state).encode() in words and b"tools.node.init" in words
    return Namespaces(init=init) if ours else None  # else the number went to somebody else


def create(layout: Layout, addresses: Addresses) -> Namespaces:
    """Fresh namespaces with a link to this machine, and a cgroup for the pods.

    Raises:
        NodeError: they cannot be made, or something else uses their addresses.
    """
    routes = run(["ip", "-o", "-4", "route", "show", "to", "match", addresses.node]).splitlines()
    taken = [route for route in routes if not route.startswith("default")]
    if taken or addresses.link in run(["ip", "-o", "link"]):
        raise NodeError(
            f"{addresses.link}, {addresses.machine}: the node's link or its address is in use; "
            "run make cluster-down, or name another folder with CACHE"
        )
    (layout.state / "var-log").mkdir(parents=True, exist_ok=True)
    with (layout.logs / "init.log").open("wb") as log:
        started = subprocess.Popen(
            [*UNSHARE, sys.executable, "-m", "tools.node.init", layout.state, NODE_NAME],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def living() -> Namespaces | None:
        if started.poll() is not None:
            said = (layout.logs / "init.log").read_text("utf-8").strip().splitlines()
            raise NodeError(f"the node's namespaces: {said[-1] if said else 'ended at once'}")
        return find(layout)

    space = wait(living, "the node's namespaces", seconds=20)
    _link(space, addresses)
    _make_cgroup(layout)
    return space


def _link(space: Namespaces, addresses: Addresses) -> None:
    run(f"ip link add {addresses.link} type veth peer name uplink netns {space.init}".split())
    run(f"ip addr add {addresses.machine}/30 dev {addresses.link}".split())
    run(f"ip link set {addresses.link} up".split())
    for command in (
        f"ip addr add {addresses.node}/30 dev uplink",
        "ip link set uplink up",
        f"ip route add default via {addresses.machine}",
    ):
        space.run(*command.split())


def _make_cgroup(layout: Layout) -> None:
    for hierarchy in _hierarchies():
        with contextlib.suppress(FileExistsError):
            (hierarchy / layout.cgroup).mkdir()


def _hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def destroy(layout: Layout) -> None:
    """End whatever runs in the node's namespaces, and remove its cgroup. Nothing to do is no error.

    Raises:
        NodeError: something is still there after a minute.
    """
    if space := find(layout):
        os.kill(space.init, signal.SIGKILL)
        wait(lambda: not Path(f"/proc/{space.init}").exists(), "the end of the node's processes")
    with contextlib.suppress(CommandFailed):  # usually gone with the namespaces already
        run(["ip", "link", "delete", f"moe-{layout.key}"])
    for hierarchy in _hierarchies():
        top = hierarchy / layout.cgroup
        wait(lambda top=top: _remove(top), f"{top}: the end of its cgroups")  # type: ignore[misc]
    (layout.state / "init.pid").unlink(missing_ok=True)


def _remove(top: Path) -> bool:
    """Remove a tree of cgroups, leaves first; False while something is still in it."""
    for path, _, _ in os.walk(top, topdown=False):
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def signal_inside(space: Namespaces, pid: int, number: signal.Signals) -> None:
    """Send a signal to a process by its number inside; one that has ended is no error."""
    words: Sequence[str] = ("kill", f"-{number.value}", str(pid))
    with contextlib.suppress(CommandFailed):
        space.run(*words)
