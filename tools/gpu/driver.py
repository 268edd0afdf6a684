"""Run named stages one after the other, some side by side; never hang; go on where one stopped.

    python -m tools.gpu run machine selftest conformance+counts speed --out results

Stages between plus signs run at the same time: those whose times do not count. Each is a process
of its own with a time limit, and leaves a JSON document with what it found. A stage whose document
is there, from the same source, is not run again (`--again` does).
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve.errors import UsageError
from tools.gpu import place
from tools.gpu.bundle import ROOT, tracked_bytes
from tools.gpu.stages import STAGES

LARGEST_LOG = 400_000


@dataclass(frozen=True, slots=True)
class Running:
    """A stage's process."""

    name: str
    process: subprocess.Popen[bytes]
    began: float
    log: Path


class Driver:
    """Stages of one run; documents in `out/results`, logs in `out/logs.tgz`."""

    def __init__(self, out: Path, *, again: bool, deadline: float | None) -> None:
        """`deadline`: seconds after which no stage goes on (None: the stages' own limits)."""
        self.results, self.out = place.WORK / "results", out
        self.logs = place.WORK / "logs"
        self.again = again
        self.ends = None if deadline is None else time.monotonic() + deadline
        self.source = source_digest()
        for folder in (self.results, self.logs, out):
            folder.mkdir(parents=True, exist_ok=True)

    def run(self, groups: Sequence[str]) -> bool:
        """Run every group in order; returns whether each stage ended well."""
        good = True
        for group in groups:
            good &= self._group(group.split("+"))
            self._gather()
        return good

    def _group(self, names: Sequence[str]) -> bool:
        if unknown := set(names) - STAGES.keys():
            known = ", ".join(STAGES)
            raise UsageError(f"stage {min(unknown)}: unknown; the stages are {known}")
        todo = [name for name in names if self.again or not self._done(name)]
        running = [self._start(name) for name in todo]
        ended = [self._finish(each) for each in running]
        return all(ended)

    def _done(self, name: str) -> bool:
        document = self._document(name)
        return bool(document.get("ok")) and document.get("source") == self.source

    def _document(self, name: str) -> dict[str, Any]:
        file = self.results / f"{name}.json"
        found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        return found

    def _start(self, name: str) -> Running:
        (self.results / f"{name}.json").unlink(missing_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as target:
            process = subprocess.Popen(
                [sys.executable, "-m", "tools.gpu.stages", name, str(self.results)],
                cwd=ROOT,
                env=place.environment(),
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(name, process, time.monotonic(), log)

    def _finish(self, running: Running) -> bool:
        limit = running.began + STAGES[running.name].seconds
        limit = limit if self.ends is None else min(limit, self.ends)
        try:
            code: int | str = running.process.wait(max(1.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = "time"
        self._end(running)
        document = self._document(running.name)
        seconds = round(time.monotonic() - running.began, 1)
        ok = code == 0 and bool(document.get("found"))
        if code == "time":
            document["reason"] = f"stopped after {seconds} s, its limit"
        elif not ok:
            document.setdefault("reason", f"ended with {code}")
        document |= {"stage": running.name, "ok": ok, "seconds": seconds, "source": self.source}
        (self.results / f"{running.name}.json").write_text(json.dumps(document, indent=1), "utf-8")
        print(json.dumps(document), flush=True)
        if not ok:
            lines = running.log.read_text("utf-8", "replace").splitlines()
            shown = [line[:300] for line in lines if line.strip()][-25:]
            print("\n".join(f"| {line}" for line in shown), flush=True)
        return ok

    def _end(self, running: Running) -> None:
        """End what the stage left: its process group, gently first."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(running.process.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.5)
        running.process.poll()

    def _gather(self) -> None:
        """All documents in one, and the ends of the logs, where they are fetched from."""
        documents = {f.stem: json.loads(f.read_text("utf-8")) for f in self.results.glob("*.json")}
        (self.out / "results.json").write_text(json.dumps(documents, indent=1) + "\n", "utf-8")
        report = place.WORK / "report"
        if report.exists():
            with tarfile.open(self.out / "report.tgz", "w:gz") as tar:
                tar.add(report, arcname="report")
        with tarfile.open(self.out / "logs.tgz", "w:gz") as tar:
            for log in sorted(self.logs.glob("*")):
                if log.is_file() and log.stat().st_size > LARGEST_LOG:
                    text = log.read_bytes()
                    log.write_bytes(text[:100_000] + b"\n...\n" + text[-200_000:])
                tar.add(log, arcname=f"logs/{log.name}")


def source_digest() -> str:
    """Names the source that the stages run: the product, its emulation and these tools."""
    found = hashlib.sha256()
    for folder in ("moe_serve", "emulation", "demo", "tools/gpu", "tests/gpu", "tests/emulation"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            found.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return found.hexdigest()[:16]


__all__ = ["Driver", "source_digest", "tracked_bytes"]
