"""What the demo refuses before it starts anything, each in one line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from moe_serve_demo import host
from moe_serve_demo.errors import DemoError


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(DemoError, match=f"port {port} is in use.*--port"):
            host.require_ports([port])


def test_too_little_memory_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "available_memory", lambda: 3 * host.GIB)

    with pytest.raises(DemoError, match=r"10 GiB .* 3\.0 GiB are free"):
        host.require_memory(10 * host.GIB)


def test_available_memory_is_a_plausible_number() -> None:
    assert 0 < host.available_memory() < 2**50


def test_too_little_disk_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="not/there"):
        host.require_disk(tmp_path / "not/there", 2**60)


def test_one_core_is_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})

    with pytest.raises(DemoError, match="one processor core: the demo needs two"):
        host.two_cores()


def test_pinning_moves_a_process_and_its_children() -> None:
    core = min(os.sched_getaffinity(0))
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        while len(family := host.descendants(parent.pid)) < 2:
            assert parent.poll() is None
        host.pin(family, {core})

        assert [os.sched_getaffinity(pid) for pid in family] == [{core}, {core}]
    finally:
        parent.communicate(b"\n")


def test_pinning_a_process_that_is_gone_is_no_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    host.pin([gone.pid], {0})
