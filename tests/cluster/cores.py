"""Cores of their own for servers in pods, as GPUs are: on the node of `make cluster` alone.

Servers that share a few cores with each other and with the node slow each other down by chance, for
seconds at a time. On a core each, which they swap, both have the same share of all else that runs.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from moe_serve_demo.host import pin, yield_to


@contextlib.contextmanager
def swapped(uids: Sequence[str], *, seconds: float) -> Iterator[None]:
    """Keep each pod (by its UID) on one core, another one every `seconds`; at the end, on all."""
    everywhere = sorted(os.sched_getaffinity(0))
    if len(everywhere) < len(uids):
        raise ValueError(f"{len(uids)} pods need a core each, {len(everywhere)} are there")
    over = threading.Event()

    def swap() -> None:
        for turn in itertools.count():
            for number, uid in enumerate(uids):
                pin(processes(uid), {everywhere[(number + turn) % len(uids)]})
            if over.wait(seconds):
                return

    for uid in uids:
        found = processes(uid)
        [worker] = (pid for pid in found if title(pid).startswith("VLLM::Worker"))
        yield_to(worker, found)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for uid in uids:
            pin(processes(uid), set(everywhere))


def processes(uid: str) -> list[int]:
    """The processes of a pod's containers, as the host numbers them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"pod{uid}" in (entry / "cgroup").read_text("utf-8"):
                    found.append(int(entry.name))
    return found


def title(pid: int) -> str:
    """A process's command line as `ps` shows it; vLLM's processes set theirs."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
    except OSError:
        return ""
