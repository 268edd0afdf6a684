"""What a node could leave on a machine, as it is now; and a rehearsal of a node's whole life.

The node of the rehearsal has no Prometheus: that is pods alone, as names and gateway are too.

The rehearsal runs in namespaces of its own, which stand for a machine on which nobody else works:
what others start and end meanwhile is not seen, so before and after can be compared exactly.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.node import lifecycle
from tools.node.commands import run
from tools.node.layout import REPOSITORY, Layout
from tools.node.preconditions import UNSHARE
from tools.node.waiting import wait

# Numbers that the kernel counts by itself, among the settings.
_COUNTERS = (
    *("fs/", "kernel/random/", "kernel/ns_last_pid", "kernel/pty/nr", "kernel/tainted"),
    "nf_conntrack_count",
)
_FOLDERS = ("/etc/cni", "/opt", "/run", "/usr/libexec", "/var/lib", "/var/log")
_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
Snapshot = dict[str, list[str]]


def snapshot() -> Snapshot:
    """Everything that `make cluster-down` has to give back, by kind."""
    facts = {
        "processes": _processes(),
        "mounts": _mounts(),
        "network namespaces": {
            str(path.readlink()) for path in Path("/proc").glob("[0-9]*/ns/net")
        },
        "named network namespaces": run(["ip", "netns", "list"]).splitlines(),
        "interfaces": run(["ip", "-o", "-d", "link"]).splitlines(),
        "addresses": run(["ip", "-o", "addr"]).splitlines(),
        "routes": run(["ip", "route", "show", "table", "all"]).splitlines(),
        "rules": run(["nft", "list", "ruleset"]).splitlines(),
        "cgroups": _cgroups(),
        "settings": _settings(),
        "listening": _listening(),
        "folders": (entry for top in _FOLDERS for entry in map(str, Path(top).glob("*"))),
    }
    return {kind: sorted(found) for kind, found in facts.items()}


def _processes() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        if path.name not in (str(os.getpid()), "self"):
            words = (path / "cmdline").read_bytes().split(b"\0")
            yield f"{path.name} {b' '.join(words).decode(errors='replace')}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, _, after = line.partition(" - ")
        place = before.split()[4]
        if "/images/storage/" not in place:  # `make images` may be at work beside this
            yield f"{place} {after}"


def _cgroups() -> Iterator[str]:
    """The groups at the top: what is below one that others made is their own affair."""
    several = Path("/sys/fs/cgroup/memory").exists()  # version 1 has several hierarchies
    for path in Path("/sys/fs/cgroup").glob("*/*" if several else "*"):
        if path.is_dir():
            yield str(path)


def _settings() -> Iterator[str]:
    for path in Path("/proc/sys").rglob("*"):
        name = str(path.relative_to("/proc/sys"))
        if not path.is_file() or any(part in name for part in _COUNTERS):
            continue
        try:
            yield f"{name} = {path.read_text('utf-8').strip()}"
        except OSError:
            continue  # some may only be written, some ask for a device that is not there


def _listening() -> Iterator[str]:
    for protocol, state in _LISTENING.items():
        for line in Path(f"/proc/net/{protocol}").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == state:
                yield f"{protocol} {fields[1]}"


def rehearse(cache: Path) -> dict[str, Snapshot]:
    """A half-finished start, a whole one, an end: the machine before, during and after."""
    script = 'mount -t proc proc /proc; ip link set lo up; "$@"'
    inside = [sys.executable, "-m", "tests.cluster.machine", str(cache)]
    printed = run([*UNSHARE, "sh", "-ec", script, "sh", *inside], cwd=REPOSITORY, seconds=500)
    snapshots: dict[str, Snapshot] = json.loads(printed.splitlines()[-1])
    return snapshots


def _live(layout: Layout) -> dict[str, Snapshot]:
    up = [sys.executable, "-m", "tools.node", "up", "--without-monitoring"]
    up += ["--cache", str(layout.cache)]
    before = snapshot()
    broken_off = subprocess.Popen(up, stdout=subprocess.DEVNULL)
    wait(
        lambda: (layout.pids / "kube-apiserver").exists() or broken_off.poll() is not None,
        "a start that has got as far as the API server",
        seconds=120,
    )
    broken_off.send_signal(signal.SIGKILL)
    broken_off.wait()
    half = snapshot()
    lifecycle.up(layout, monitoring=False)
    during = snapshot()
    lifecycle.down(layout)
    return {"before": before, "half": half, "during": during, "after": snapshot()}


if __name__ == "__main__":
    print(json.dumps(_live(Layout(cache=Path(sys.argv[1])))))  # noqa: T201 - read by rehearse
