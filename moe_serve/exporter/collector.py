"""One collection per scrape: every record's samples, and the exporter's own."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from moe_serve import __version__
from moe_serve.exporter import samples as made
from moe_serve.exporter.sources import RecordSource, Sources
from moe_serve.metrics.catalogue import EXPORTER
from moe_serve.metrics.samples import Samples
from moe_serve.preflight.proof import check_proof
from moe_serve.telemetry.record import Record


class Collector:
    """Reads every record anew at each scrape; a bad record does not affect the others."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._scrapes = self._errors = 0
        self._one_at_a_time = threading.Lock()

    def collect(self) -> Samples:
        """All samples of this moment."""
        with self._one_at_a_time:
            return self._collect()

    def _collect(self) -> Samples:
        begun = time.perf_counter()
        errors = self._sources.errors
        samples, bound, before = Samples(EXPORTER), 0, sum(errors.values())
        for source in self._sources.read():
            bound += self._add(samples, source)
        for rank in self._sources.unreadable:
            samples.put("source_up", 0, rank)
        bound += len(self._sources.unreadable)
        series = samples.count()
        for reason, count in errors.items():
            samples.put("source_errors_total", count, reason)
        self._scrapes += 1
        self._errors += sum(errors.values()) > before
        samples.put("exporter_info", 1, __version__)
        samples.put("exporter_scrapes_total", self._scrapes)
        samples.put("exporter_scrape_errors_total", self._errors)
        samples.put("exporter_series", series)
        samples.put("exporter_series_bound", bound)
        samples.put("exporter_scrape_duration_seconds", time.perf_counter() - begun)
        return samples

    def _add(self, samples: Samples, source: RecordSource) -> int:
        record, proof = source.record, source.record.proof
        made.add_source(samples, record, up=record.alive)
        if source.fresh:
            made.add_record(samples, record)
            made.add_totals(samples, record)
            samples.put("padding_active", int(unproven([record]) is None), record.rank.name)
            if proof is not None:
                made.add_roofline(samples, record, proof)
                made.add_proof(samples, record, proof)
            elif record.proof_fault:
                self._sources.fault("proof", f"{record.path}: its proof: {record.proof_fault}")
        return made.bound_of(proof)


class Readiness:
    """Whether `ranks` workers prove their padding, for the readiness probe; counts no error."""

    def __init__(self, directory: Path, *, ranks: int) -> None:
        self._sources = Sources(directory, ttl=0, log_level=logging.DEBUG)
        self._ranks = ranks
        self._one_at_a_time = threading.Lock()

    def __call__(self) -> str | None:
        """The first failed check in one line; None: all pass."""
        with self._one_at_a_time:
            records = [source.record for source in self._sources.read()]
            reason = unproven(records, ranks=self._ranks, place=self._sources.directory)
            return "; ".join([reason, *self._sources.faults]) if reason else None


def unproven(records: Sequence[Record], *, ranks: int = 1, place: Path = Path()) -> str | None:
    """Why `ranks` workers do not prove that their declared padding is in force; None: they do."""
    checks = check_proof(records, ranks=ranks, place=str(place))
    return next((f"{check.name}: {check.detail}" for check in checks if not check.passed), None)
