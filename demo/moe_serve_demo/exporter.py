"""An arm's exporter: a process of its own beside the server, asked as Prometheus asks it."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from moe_serve_demo import host
from moe_serve_demo.errors import DemoError

_START_SECONDS = 20
_STOP_SECONDS = 5
PREFIX = "moe_serve_"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of an exporter."""

    samples: Mapping[str, tuple[tuple[Labels, float], ...]]

    def series(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """Labels and value of every series of a metric that has these labels."""
        for found, value in self.samples.get(PREFIX + name, ()):
            if labels.items() <= found.items():
                yield found, value

    def total(self, name: str, **labels: str) -> float | None:
        """Their sum; None where there is no series."""
        values = [value for _, value in self.series(name, **labels)]
        return sum(values) if values else None

    def label(self, name: str, label: str) -> str:
        """A label of an info metric; empty where there is none."""
        return next((found.get(label, "") for found, _ in self.series(name)), "")


def parse(text: str) -> Scrape:
    """An exporter's answer in Prometheus's text format."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Scrape({name: tuple(found) for name, found in samples.items()})


class Exporter:
    """`moe-serve exporter` over one arm's records."""

    def __init__(self, arm: str, *, records: Path, port: int, log: Path, keep: bool) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"
        self._arm, self._records, self._port, self._log = arm, records, port, log
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it; returns at once."""
        command = [
            *(sys.executable, "-m", "moe_serve", "exporter", "--records", str(self._records)),
            *("--listen", f"127.0.0.1:{self._port}"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # As the server that it tells of.
                preexec_fn=None if self._keep else host.die_with_parent,  # noqa: PLW1509
            )

    def scrape(self) -> Scrape:
        """What it tells now; it has a moment to start.

        Raises:
            DemoError: it does not answer.
        """
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                return parse(httpx.get(self.url, timeout=10).raise_for_status().text)
            except httpx.HTTPError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > until:
                    raise DemoError(
                        f"{self._arm}: its exporter does not answer at {self.url} ({error}); "
                        f"its log is {self._log}"
                    ) from error
                time.sleep(0.2)

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None
