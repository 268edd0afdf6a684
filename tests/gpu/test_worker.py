"""The plugin in a doctored worker on a real GPU: captured graphs, dummy batches, recaptures."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import moe_serve.vllm_plugin as plugin
from moe_serve.telemetry.proof import GraphsProof
from moe_serve.telemetry.record import BatchPhase, GraphMode, SlotKind, read_records
from tests.vllm_plugin import doctored

torch: Any = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU"),
]

LAYERS = ("model.layers.0.mlp", "model.layers.1.mlp", "model.layers.2.mlp")
SIZES = (8, 64)


class Worker:
    """A doctored worker whose layers multiply matrices, and its graphs."""

    def __init__(self) -> None:
        self.weight = torch.randn(3072, 3072, device="cuda", dtype=torch.bfloat16) * 0.02
        self.inputs = {n: torch.randn(n, 3072, device="cuda").bfloat16() for n in SIZES}
        self.rows = SIZES[0]
        self.x: Any = None
        self.graphs: dict[int, Any] = {}
        self.layers = {name: doctored.MoeRunner(self._layer) for name in LAYERS}
        self.experts: Any = sys.modules[plugin.aligned_padding.MODULE]
        made = doctored.make_worker(sys.modules[plugin.worker.MODULE], layers=self.layers)
        made.device = torch.device("cuda", 0)
        made.model_config.enforce_eager = False
        compilation = made.vllm_config.compilation_config
        compilation.cudagraph_mode = doctored.GraphMode("FULL", "PIECEWISE")
        compilation.cudagraph_capture_sizes = list(SIZES)
        made.load_model()
        self.worker = made

    def _layer(self) -> None:
        self.x = self.experts.rocm_aiter_fused_experts(
            self.x, self.weight, doctored.moe_config(), doctored.SWIGLU, doctored.W4A16
        )

    def forward(self, rows: int) -> None:
        self.x = self.inputs[rows]
        for runner in self.layers.values():
            runner.forward()

    def capture(self) -> None:
        for rows in SIZES:
            self.forward(rows)
            torch.cuda.synchronize()
            self.graphs[rows] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[rows]):
                self.forward(rows)

    def step(self, rows: int) -> None:
        self.worker.run = self.graphs[rows].replay
        each = {str(n): 1 for n in range(rows - 1)}  # one row of the graph is padding
        scheduled = SimpleNamespace(num_scheduled_tokens=each, total_num_scheduled_tokens=len(each))
        self.worker.execute_model(scheduled)

    def dummy(self, rows: int) -> None:
        self.worker.run = self.graphs[rows].replay
        self.worker.execute_dummy_batch()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Worker]:
    # As in production: a driver maps memory, not a file on a disk.
    folder = Path("/dev/shm") / tmp_path.name
    monkeypatch.setenv("MOE_SERVE_RECORD_DIR", str(folder))

    def product(hidden_states: Any, w1: Any, **_: Any) -> Any:
        return hidden_states @ w1

    doctored.install(monkeypatch, [], work=product)
    plugin.register()
    made = Worker()
    made.folder = folder  # type: ignore[attr-defined]
    yield made
    torch.cuda.synchronize()
    plugin.unregister()


def counts(here: Any) -> dict[tuple[Any, ...], tuple[int, int]]:
    torch.cuda.synchronize()
    (record,) = read_records(here.folder)
    return {
        (key.kind, key.mode, key.phase, key.layer, key.bucket): (total.count, total.tokens)
        for key, total in record.totals.items()
        if total.count
    }


def test_replays_of_served_steps_are_counted_and_no_other_work(here: Any) -> None:
    here.capture()
    assert counts(here) == {}
    for _ in range(3):
        here.step(8)
        here.dummy(64)
    for _ in range(2):
        here.step(64)
    here.dummy(8)

    full = (GraphMode.FULL, BatchPhase.DECODE)
    assert counts(here) == {
        (SlotKind.KERNEL, *full, 0, 8): (3, 24),
        (SlotKind.KERNEL, *full, 2, 8): (3, 24),
        (SlotKind.WINDOW, *full, None, 8): (3, 24),
        (SlotKind.KERNEL, *full, 0, 64): (2, 128),
        (SlotKind.KERNEL, *full, 2, 64): (2, 128),
        (SlotKind.WINDOW, *full, None, 64): (2, 128),
        (SlotKind.SCHEDULE, GraphMode.EAGER, BatchPhase.DECODE, None, 0): (5, 3 * 7 + 2 * 63),
    }
    (record,) = read_records(here.folder)
    assert record.proof.markers.state == "on"
    assert record.proof.markers.path == "mapped"
    assert record.proof.graphs == GraphsProof(sizes=(8, 64), modes=("full", "piecewise"))
    assert record.recaptures == 0


def test_another_capture_is_a_new_generation_whose_totals_go_on(here: Any) -> None:
    here.capture()
    here.step(8)
    here.capture()
    here.step(8)
    found = counts(here)
    (record,) = read_records(here.folder)

    assert found[SlotKind.KERNEL, GraphMode.FULL, BatchPhase.DECODE, 0, 8] == (2, 16)
    assert record.recaptures == 1


def test_eager_steps_are_counted_by_rows(here: Any) -> None:
    here.worker.run = lambda: here.forward(64)
    scheduled = SimpleNamespace(num_scheduled_tokens={"a": 64}, total_num_scheduled_tokens=64)
    here.worker.execute_model(scheduled)

    assert counts(here)[SlotKind.KERNEL, GraphMode.EAGER, BatchPhase.MIXED, 2, 64] == (1, 64)
