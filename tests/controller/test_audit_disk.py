"""A full audit disk: the verdict and the action come first, and the loss is shown."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_serve.controller.notifiers import AuditNotifier
from moe_serve.controller.web import Status
from moe_serve.judge.audit import Audit, entries
from moe_serve.rollout.state import RolloutPhase, RolloutState
from tests.controller.test_around import ENTRY
from tests.controller.test_loop import PLAN, STEP, Bench
from tests.judge.serving import Memory, Served
from tests.judge.serving import serving as serving
from tests.testing.verdicts import findings


class Disk:
    """Files whose writes stop in the middle of a line, as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        opened, disk = Path.open, self

        def open_(path: Path, mode: str = "r", **options: Any) -> Any:
            found = opened(path, mode, **options)
            if mode == "a" and disk.full:
                return Torn(found)
            return found

        monkeypatch.setattr(Path, "open", open_)


class Torn:
    """A file that takes ten characters and then has no room."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.real.close()

    def write(self, text: str) -> None:
        self.real.write(text[:10])
        self.real.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_full_audit_disk_does_not_stop_the_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = tmp_path / "audit.jsonl", Disk(monkeypatch)
    log, bench = Audit(path), Bench()
    controller = bench.controller()
    controller.notifiers = [AuditNotifier(log), *controller.notifiers]
    controller.audit_fault = lambda: log.fault
    warned: list[str] = []

    class Warned:
        def warn(self, text: str, at: float) -> None:
            warned.append(text)

    controller.warnings.sink = Warned()
    state = bench.settle(controller)
    assert (state.phase, bench.server.weights) == (RolloutPhase.STEPS, STEP)
    result = controller.reconcile()
    assert result.is_leader and not result.error
    assert result.audit_fault == f"audit {path}: No space left on device"
    assert warned == [result.audit_fault]
    status = Status(plan=PLAN, active=True, stale_seconds=60, clock=lambda: 0.0)
    status.note(result)
    assert "moe_serve_rollout_audit_write_failed 1.0\n" in status.metrics()
    disk.full = False
    assert controller.reconcile().audit_fault == ""
    notified = [entry["transition"]["revision"] for entry in entries(path)]
    assert notified == list(range(1, state.revision + 1))


def test_any_error_of_a_notifier_leaves_the_rest_told() -> None:
    class Broken:
        name = "audit"

        def notify(self, rollout: str, entry: object) -> bool:
            raise ZeroDivisionError("a bug")

    bench = Bench()
    controller = bench.controller()
    controller.notifiers = [Broken(), *controller.notifiers]
    state: RolloutState = bench.settle(controller)
    assert sorted(number for _, number in bench.server.events) == list(range(1, state.revision + 1))


def test_line_that_did_not_fit_is_taken_back_from_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    log = Audit(path)
    log.transition("r-1", ENTRY)
    before, disk = path.read_bytes(), Disk(monkeypatch)
    with pytest.raises(Exception, match="No space left"):
        log.transition("r-1", replace(ENTRY, revision=4))
    assert path.read_bytes() == before
    disk.full = False
    Audit(path).transition("r-1", replace(ENTRY, revision=4))
    assert len(list(entries(path))) == 2


def test_verdict_that_cannot_be_audited_is_given_all_the_same(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, client = served(Memory())
    log, disk = Audit(tmp_path / "audit.jsonl"), Disk(monkeypatch)
    watch.on_judged = lambda found: log.append(found, 1.0)
    watch.judge()
    body = client.get("/v1/verdict").json()
    assert (body["verdict"], body["fault"]) == ("PROMOTE", None)
    assert "No space left on device" in body["audit_fault"]
    assert "moe_serve_canary_audit_write_failed 1.0\n" in client.get("/metrics").text
    disk.full = False
    watch.judge()
    assert client.get("/v1/verdict").json()["audit_fault"] is None
    assert "moe_serve_canary_audit_write_failed 0.0\n" in client.get("/metrics").text
    assert len(list(entries(log.path))) == 1


def test_fault_of_the_audit_is_of_its_last_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, disk = Audit(tmp_path / "audit.jsonl"), Disk(monkeypatch)
    found = findings(hours=0.5)
    with pytest.raises(Exception, match="No space left"):
        log.append(found, 1.0)
    assert "No space left on device" in log.fault
    disk.full = False
    log.append(found, 2.0)
    assert log.fault == ""
