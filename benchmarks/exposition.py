"""CPU time of the metrics' text, beside prometheus-client's for the same values.

    PYTHONPATH=. python benchmarks/exposition.py

Both write the scrape of the largest pod (8 ranks, 4 layers, 83 captured sizes). prometheus-client's
time includes making its metric families, since it can write nothing else.
"""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scrape import SIZES, write

from moe_serve.exporter.collector import Collector
from moe_serve.exporter.sources import Sources
from moe_serve.metrics.exposition import OPENMETRICS, TEXT, render
from tests.testing.exposition import library_text

_ROUNDS = 15


def milliseconds(work: Callable[[], object]) -> float:
    """Median CPU time of one call."""
    times = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return statistics.median(times) * 1e3


def main() -> None:
    """Measure and print JSON."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        for writer, _ in write(folder, ranks=8, layers=4, sizes=SIZES):
            stack.callback(writer.close)
        samples = Collector(Sources(folder, ttl=60)).collect()
    found: dict[str, object] = {"series": samples.count()}
    for name, kind in (("text", TEXT), ("openmetrics", OPENMETRICS)):
        ours = milliseconds(lambda kind=kind: render(samples, kind))  # type: ignore[misc]
        theirs = milliseconds(lambda kind=kind: library_text(samples, kind))  # type: ignore[misc]
        found[name] = {"ms": ours, "prometheus_client_ms": theirs, "ratio": theirs / ours}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
