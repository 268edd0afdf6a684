"""Which batch sizes a server's traffic keeps it busy with."""

from collections.abc import Iterable

from moe_serve.analysis.series import MIXED, CellKind
from moe_serve.sources.assemble import cell_of
from moe_serve.sources.names import STEP, WINDOW
from moe_serve.sources.streams import Stream


def busy_by_batch(streams: Iterable[Stream]) -> dict[int, float]:
    """Busy seconds since the process began by batch size: of whole steps, else forward windows.

    Batches with prefill are left out: their rows are no requests. `OVERFLOW` has no size.
    """
    found = list(streams)
    steps = any(stream.name == STEP[1] for stream in found)
    busy: dict[int, float] = {}
    for stream in found:
        if stream.name != (STEP if steps else WINDOW)[1]:
            continue
        cell = cell_of(CellKind.STEP, stream.labels)
        if cell is not None and cell.phase != MIXED and stream.values[-1] > 0:
            busy[cell.bucket] = busy.get(cell.bucket, 0.0) + stream.values[-1]
    return busy
