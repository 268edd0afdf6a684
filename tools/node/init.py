"""The node's first process: it prepares the namespaces, then collects what ends in them.

Run by `namespaces.create` inside fresh namespaces. When it dies, the kernel ends every process of
the node, and with the last of them go its mounts, interfaces, rules and sockets.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

# What the kubelet wants to find. The files lie over the kernel's own for the node's processes
# alone: these settings are the whole machine's, and it keeps its own.
TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(state: Path, hostname: str) -> None:
    own_pid = str(Path("/proc/self").readlink())  # in the machine's /proc, still: seen from outside
    for command in (
        "mount --make-rprivate /",
        "mount --make-rshared /",
        "mount -t proc proc /proc",
        "mount -t tmpfs tmpfs /run",
        "mount -t tmpfs tmpfs /var/lib",
        f"mount --bind {state}/var-log /var/log",
        "ip link set lo up",
        f"hostname {hostname}",
    ):
        subprocess.run(command.split(), check=True)
    for name, value in TUNABLES.items():
        wanted = Path("/run/tunables", name.replace("/", "."))
        wanted.parent.mkdir(exist_ok=True)
        wanted.write_text(value)
        subprocess.run(["mount", "--bind", str(wanted), f"/proc/sys/{name}"], check=True)
    written = state / "init.pid.new"
    written.write_text(own_pid)
    written.rename(state / "init.pid")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        _collect()


def _collect() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
