"""What markers must do on every device: `python -m moe_serve.vllm_plugin.markers.selftest`.

Run it on a GPU before trusting its numbers: it makes its own record in a temporary folder, checks
the markers there and prints JSON. Exit code 0: every check passed; 1: one did not; 2: it cannot
run here.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moe_serve.telemetry.layout import pack_key
from moe_serve.telemetry.record import (
    BatchPhase,
    GraphMode,
    Rank,
    RecordWriter,
    SlotKey,
    SlotKind,
    Totals,
    read_records,
)  # fmt: skip
from moe_serve.vllm_plugin.markers.slot import Backend, Slot

SHARED_MEMORY = "/dev/shm"
_LATER = 2**62
_TRUTH, _TRUTH_ROUNDS, _TRUTH_REPLAYS = 0.005, 20, 10
_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SelftestCheck:
    """One property: whether it holds, and what was seen."""

    name: str
    passed: bool
    seen: str


class SelftestRig:
    """Markers of one backend over a record of their own, and work to put between them."""

    def __init__(
        self, folder: Path, writer: RecordWriter, backend: Backend, device: Any | None
    ) -> None:
        """`device`: a torch device with graphs; None on a CPU."""
        self.folder, self.writer, self.backend, self.device = folder, writer, backend, device
        self.scale = 1
        self._matrix: Any = None
        if device is not None:
            import torch

            self._matrix = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)

    def slot(self, bucket: int, *, kind: SlotKind = SlotKind.KERNEL, layer: int | None = 0) -> Slot:
        """A new slot for `bucket`."""
        key = SlotKey(
            kind=kind, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=bucket, layer=layer
        )  # fmt: skip
        number = self.writer.slot(key)
        assert number is not None
        slot = Slot(number=number, word=pack_key(key))
        self.backend.owns(slot)
        return slot

    def work(self) -> None:
        """About 1 ms on a CPU, 0.2 ms a matrix product on an H200, `scale` times over."""
        for _ in range(self.scale):
            if self.device is None:
                until = time.perf_counter_ns() + 200_000
                while time.perf_counter_ns() < until:
                    pass
            else:
                self._matrix = (self._matrix @ self._matrix).clamp_(-1, 1)

    def pair(self, slot: Slot, window: Slot | None = None) -> None:
        """One marked call."""
        self.backend.start(slot, window)
        self.work()
        self.backend.stop(slot, _ROWS, window)

    def totals(self) -> dict[int, Totals]:
        """Totals by bucket, once the device is idle and everything has arrived."""
        self.settle()
        (record,) = read_records(self.folder)
        return {key.bucket: total for key, total in record.totals.items()}

    def settle(self) -> None:
        """Wait until all work is done and counted."""
        if self.device is not None:
            import torch

            torch.cuda.synchronize(self.device)
        self.bring()

    def bring(self) -> None:
        """Let what has been counted arrive, without waiting for the device."""
        copier = getattr(self.backend, "_copier", None)
        if copier is not None:
            copier.copy()


def check_all(bench: SelftestRig) -> tuple[SelftestCheck, ...]:
    """Every property, in an order in which each needs only those before it."""
    cost = bench.backend.calibrate()
    checks = [
        SelftestCheck(
            name="cost is calibrated",
            passed=0 <= cost.bias_seconds <= cost.pair_seconds < 1e-3,
            seen=f"pair {cost.pair_seconds * 1e6:.2f} us, bias {cost.bias_seconds * 1e6:.2f} us",
        ),
        _gate(bench),
        _counts(bench),
        _window(bench),
        _backwards(bench),
        _concurrent_reader(bench),
    ]
    if bench.device is not None:
        checks += [_graphs(bench), _gate_in_a_graph(bench), _truth(bench)]
    return tuple(checks)


def _gate(bench: SelftestRig) -> SelftestCheck:
    slot = bench.slot(1)
    bench.pair(slot)
    found = bench.totals()
    bench.backend.gate(is_open=True)
    bench.pair(slot)
    opened = bench.totals()
    return SelftestCheck(
        name="nothing is counted before the gate is open",
        passed=1 not in found and opened[1].count == 1,
        seen=f"{len(found)} slots before, {opened[1].count if 1 in opened else 0} counts after",
    )


def _counts(bench: SelftestRig) -> SelftestCheck:
    slot = bench.slot(2)
    begun = time.perf_counter()
    for _ in range(50):
        bench.pair(slot)
    bench.settle()
    took = time.perf_counter() - begun
    total = bench.totals()[2]
    passed = (
        (total.count, total.tokens, sum(total.histogram), total.invalid) == (50, 50 * _ROWS, 50, 0)
        and 0 < total.seconds < took
        and total.seconds / 50 <= total.max_seconds <= total.seconds
    )
    seen = f"{total.count} calls, {total.tokens} rows, {total.seconds:.6f} s within {took:.6f} s"
    return SelftestCheck(
        name="every call is counted once, with its rows and time", passed=passed, seen=seen
    )


def _window(bench: SelftestRig) -> SelftestCheck:
    first, last = bench.slot(3), bench.slot(4)
    window = bench.slot(5, kind=SlotKind.WINDOW, layer=None)
    for _ in range(10):
        bench.backend.start(first, window)
        bench.work()
        bench.backend.stop(first, _ROWS, None)
        bench.work()
        bench.backend.start(last, None)
        bench.work()
        bench.backend.stop(last, _ROWS, window)
    found = bench.totals()
    inner = found[3].seconds + found[4].seconds
    return SelftestCheck(
        name="a window spans its calls and what lies between them",
        passed=found[5].count == 10 and found[5].seconds > inner,
        seen=f"window {found[5].seconds:.6f} s, calls {inner:.6f} s",
    )


def _backwards(bench: SelftestRig) -> SelftestCheck:
    slot = bench.slot(6)
    bench.pair(slot)
    bench.backend.start(slot, None)
    bench.backend.pretend_start(slot, _LATER)
    bench.backend.stop(slot, _ROWS, None)
    total = bench.totals()[6]
    return SelftestCheck(
        name="a clock that runs backwards is counted, not added",
        passed=(total.count, total.invalid, total.tokens) == (1, 1, _ROWS) and total.seconds < 1,
        seen=f"{total.count} counted, {total.invalid} invalid, {total.seconds:.6f} s",
    )


def _concurrent_reader(bench: SelftestRig) -> SelftestCheck:
    slot = bench.slot(7)
    reads = wrong = torn = 0
    for _ in range(20):
        for _ in range(20):
            bench.pair(slot)
        bench.bring()
        record = read_records(bench.folder)[0]
        for key, total in record.totals.items():
            if key.bucket == 7:
                reads += 1
                wrong += total.tokens != total.count * _ROWS
                wrong += sum(total.histogram) != total.count
        torn += record.slots_torn
    return SelftestCheck(
        name="a reader beside a running device sees whole values only",
        passed=reads > 0 and not wrong and not torn,
        seen=f"{reads} reads, {wrong} wrong, {torn} torn",
    )


def _graphs(bench: SelftestRig) -> SelftestCheck:
    from moe_serve.vllm_plugin.markers.device import captured

    graphs = {size: captured(partial(bench.pair, bench.slot(size)), 1) for size in (16, 32)}
    before = bench.totals()
    for _ in range(5):
        graphs[16].replay()
    for _ in range(7):
        graphs[32].replay()
    found = bench.totals()
    grown = tuple(found[size].count - before[size].count for size in graphs)
    return SelftestCheck(
        name="replayed graphs count, each size in its own slot",
        passed=grown == (5, 7),
        seen=f"5 and 7 replays gave {grown[0]} and {grown[1]} counts",
    )


def _gate_in_a_graph(bench: SelftestRig) -> SelftestCheck:
    from moe_serve.vllm_plugin.markers.device import captured

    slot = bench.slot(64)
    graph = captured(lambda: bench.pair(slot), 1)
    before = bench.totals()[64].count
    bench.backend.gate(is_open=False)
    graph.replay()
    bench.backend.gate(is_open=True)
    graph.replay()
    grown = bench.totals()[64].count - before
    return SelftestCheck(
        name="a replay is counted only while the gate is open",
        passed=grown == 1,
        seen=f"one replay with the gate closed and one with it open gave {grown} counts",
    )


def _truth(bench: SelftestRig) -> SelftestCheck:
    from moe_serve.vllm_plugin.markers.device import captured, timed

    slots = [bench.slot(128, layer=layer) for layer in range(8)]

    def layers() -> None:
        for slot in slots:
            bench.pair(slot)

    bench.scale = 8
    marked, bare = captured(layers, 1), captured(bench.work, len(slots))
    took = []
    for _ in range(_TRUTH_ROUNDS):  # in turn, since clocks drift
        timed(marked, _TRUTH_REPLAYS)
        took.append(timed(bare, _TRUTH_REPLAYS))
    bench.scale = 1
    bench.settle()
    (record,) = read_records(bench.folder)
    means = [t.seconds / t.count for key, t in record.totals.items() if key.bucket == 128]
    plain = sum(took) / len(took)
    ratio = sum(means) / plain
    return SelftestCheck(
        name="the sum of the layers' means is the graph's time",
        passed=len(means) == len(slots) and abs(ratio - 1) < _TRUTH,
        seen=f"ratio {ratio:.4f} to a graph without markers of {plain * 1e3:.3f} ms",
    )


def open_bench(
    folder: Path, kind: str, *, mapped: bool = True
) -> tuple[SelftestRig, dict[str, object]]:
    """A bench of this kind of device, and what is known of the device; close its backend."""
    if kind == "host":
        from moe_serve.vllm_plugin.markers.host import HostMarkers

        writer = RecordWriter(folder, Rank())
        return SelftestRig(folder, writer, HostMarkers(writer), None), {"type": "cpu"}
    import torch

    from moe_serve.vllm_plugin.markers.device import DeviceMarkers, clock_of

    device = torch.device("cuda", torch.cuda.current_device())
    clock = clock_of(device)
    writer = RecordWriter(folder, Rank(), clock_hertz=clock.hertz)
    backend = DeviceMarkers(writer, device, clock=clock, mapped=mapped)
    facts = {
        "type": backend.name,
        "name": torch.cuda.get_device_name(device),
        "clock_hertz": clock.hertz,
        "clock_source": clock.source,
        "path": backend.path,
        "copy_reason": backend.copy_reason if backend.path == "copied" else None,
        "torch": torch.__version__,
    }
    return SelftestRig(folder, writer, backend, device), facts


def run(kind: str, *, mapped: bool = True) -> tuple[dict[str, object], tuple[SelftestCheck, ...]]:
    """Facts of the device and every check."""
    # As in production: a driver maps memory, not a file on a disk.
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        bench, facts = open_bench(Path(folder), kind, mapped=mapped)
        try:
            return facts, check_all(bench)
        finally:
            bench.backend.close()
            bench.writer.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Print one JSON object a way of bringing totals into the record."""
    parser = argparse.ArgumentParser(prog="selftest", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    options = parser.parse_args(argv)
    runs: list[Callable[[], tuple[dict[str, object], tuple[SelftestCheck, ...]]]]
    if options.device == "cpu":
        runs = [lambda: run("host")]
    else:
        import torch

        if not torch.cuda.is_available():
            sys.stderr.write(
                "selftest: this PyTorch sees no GPU; --device cpu checks the host's markers\n"
            )
            return 2
        runs = [lambda: run("gpu"), lambda: run("gpu", mapped=False)]
    failed = False
    for each in runs:
        facts, checks = each()
        failed = failed or not all(check.passed for check in checks)
        found = {"device": facts, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
