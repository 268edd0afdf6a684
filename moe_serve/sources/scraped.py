"""The exporters themselves, asked again and again: no Prometheus is needed."""

import shlex
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from moe_serve.analysis.history import History
from moe_serve.errors import SourceError
from moe_serve.sources.addresses import without_secrets
from moe_serve.sources.assemble import ArmSelector, QuerySource, assemble
from moe_serve.sources.recorded import write
from moe_serve.sources.streams import Streams, append, parse_key, samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One exporter of one arm."""

    arm: str
    pod: str
    url: str


@dataclass(slots=True, kw_only=True)
class Scraper:
    """Asks all targets at every `poll`, and keeps `keep_seconds` of samples."""

    targets: Sequence[Target]
    arms: ArmSelector = field(default_factory=ArmSelector)
    keep_seconds: float = 14 * 3600.0
    clock: Callable[[], float] = time.time
    timeout_seconds: float = 5.0
    faults: dict[str, str] = field(default_factory=dict)
    _streams: Streams = field(default_factory=Streams)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def poll(self) -> None:
        """Ask every target once, at the same time; a target that fails is a gap, and is named."""
        with ThreadPoolExecutor(max_workers=min(16, len(self.targets))) as pool:
            texts = list(pool.map(self._ask, self.targets))
        with self._lock:
            for target, (at, text, fault) in zip(self.targets, texts, strict=True):
                if text is None:
                    self.faults[target.url] = fault
                    continue
                try:
                    self._keep(target, at, text)
                except SourceError as error:
                    self.faults[target.url] = str(error)
                else:
                    self.faults.pop(target.url, None)
            self._streams.drop_before(self.clock() - self.keep_seconds)

    def run(self, interval: float, stop: threading.Event) -> None:
        """Poll every `interval` seconds until stopped."""
        while not stop.is_set():
            begun = time.monotonic()
            self.poll()
            stop.wait(max(0.0, interval - (time.monotonic() - begun)))

    def history(self, start: float, end: float) -> History:
        """Both arms between two times, as far as they were asked then.

        Raises:
            SourceError: no target has answered yet.
        """
        with self._lock:
            if self.faults and not list(self._streams):
                url, fault = next(iter(self.faults.items()))
                raise SourceError(f"exporter {url}: {fault}")
            return assemble(
                self._streams,
                self.arms,
                start,
                end,
                f"{len(self.targets)} exporters, scraped",
                self._way(),
            )

    def record(self, path: Path) -> None:
        """Write all samples so far as a recorded history, which `--history` reads.

        Raises:
            SourceError: the file cannot be written.
        """
        try:
            with path.open("w", encoding="utf-8") as out, self._lock:
                write(self._streams, out)
        except OSError as error:
            raise SourceError(f"recorded history {path}: {error.strerror}") from error

    def _way(self) -> QuerySource:
        shown = [(target.arm, without_secrets(target.url)) for target in self.targets]
        told = ", ".join(f"{arm}={url}" for arm, url in shown)
        urls = " ".join(shlex.quote(url) for _, url in shown)

        def build_query(names: Sequence[str], _start: float, _end: float) -> str:
            return f"curl -s {urls} | grep -E '^({'|'.join(names)})[{{ ]'"

        return QuerySource(
            source=f"exporters {told} (they tell what they count now, not what they did then)",
            build_query=build_query,
        )

    def _ask(self, target: Target) -> tuple[float, str | None, str]:
        at = self.clock()
        try:
            answer = httpx.get(target.url, timeout=self.timeout_seconds, trust_env=False)
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return at, None, f"{type(error).__name__}: {error}".rstrip(": ")
        return at, answer.text, ""

    def _keep(self, target: Target, at: float, text: str) -> None:
        """All samples of one answer, or none: half an answer would look like a restart."""
        value = {"stable": self.arms.stable, "canary": self.arms.canary}[target.arm]
        for key, sample in list(samples(text)):
            own = f"{target.arm} {target.pod} {key}"
            stream = self._streams.stream(own)
            if stream is None:
                name, labels = parse_key(key)
                labels |= {self.arms.label: value, "pod": target.pod}
                stream = self._streams.add(own, name, labels)
            append(stream, at, sample)
