"""Workers' records as a real one writes them, with the numbers in the tests' hands."""

from pathlib import Path
from typing import Any

from moe_serve.exporter.collector import Collector
from moe_serve.exporter.sources import Sources
from moe_serve.metrics.samples import Samples
from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind
from tests.testing import proofs

KERNEL = SlotKey(
    kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=64, layer=0
)
LAST = SlotKey(
    kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=64, layer=35
)
WINDOW = SlotKey(kind=SlotKind.WINDOW, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=64)
STEP = SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=BatchPhase.MIXED, bucket=0)


def worker(folder: Path, *, tp: int = 0, **changes: Any) -> RecordWriter:
    """A worker that has served ten steps of 50 requests in graphs of 64."""
    writer = RecordWriter(folder, Rank(tp=tp))
    for key in (KERNEL, LAST, WINDOW):
        for _ in range(10):
            writer.add(key, 300_000 if key is not WINDOW else 5_000_000, tokens=64)
    for _ in range(10):
        writer.stepped(BatchPhase.DECODE, 50)
    writer.add(STEP, 70_000_000, tokens=9000)
    writer.prove(proofs.proof(**changes))
    return writer


def collected(folder: Path) -> Samples:
    """One scrape of a new exporter."""
    return Collector(Sources(folder, ttl=60)).collect()
