"""Workers' records as a real one writes them, with the numbers in the tests' hands."""

from pathlib import Path
from typing import Any

from moe_serve.exporter.collector import Collector
from moe_serve.exporter.samples import Samples
from moe_serve.exporter.sources import Sources
from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind

KERNEL = SlotKey(
    kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=64, layer=0
)
LAST = SlotKey(
    kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=64, layer=35
)
WINDOW = SlotKey(kind=SlotKind.WINDOW, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=64)
STEP = SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=BatchPhase.MIXED, bucket=0)


def proof(**changes: Any) -> dict[str, Any]:
    """Of GPT-OSS-120B at TP=1 on an MI355X."""
    return {
        "moe_serve": "0.1.0",
        "vllm": "0.32.0",
        "aiter": None,
        "torch": "2.11.0",
        "policy": "aligned",
        "max_neuron_loss": 0.0,
        "intercepted_calls": 4,
        "untouched": [],
        "fault": None,
        "graphs": {"sizes": [1, 2, 4, 64], "modes": ["full", "piecewise"]},
        "config_digest": "0123456789abcdef",
        "device": {"type": "hip", "name": "AMD Instinct MI355X", "clock_hertz": 100_000_000},
        "layers": {"moe": 36, "sampled": [0, 35]},
        "markers": {
            "state": "on",
            "reason": "",
            "backend": "hip",
            "path": "mapped",
            "pair_seconds": 2e-6,
            "bias_seconds": 7e-7,
            "budget_ratio": 0.005,
            "overhead_ratio": None,
        },
        "shapes": [shape()],
        **changes,
    }


def shape(**changes: Any) -> dict[str, Any]:
    """What `aligned` sends where nothing is lost."""
    return {
        "padded": {"hidden": 3072, "intermediate": 3072},
        "hidden": 2880,
        "live_neurons": 2880,
        "experts": 128,
        "all_experts": 128,
        "top_k": 4,
        "quant": "w4a16",
        "path": "cktile",
        "raw": {"hidden": 192, "intermediate": 192},
        "upstream": {"hidden": 128, "intermediate": 384},
        "sent": {"hidden": 0, "intermediate": 128},
        "lost_neurons": 0,
        "loss_fraction": 0.0,
        "bytes_ratio": 1.09,
        "safe": True,
        "verified": True,
        "violations": [],
        **changes,
    }


def worker(folder: Path, *, tp: int = 0, **changes: Any) -> RecordWriter:
    """A worker that has served ten steps of 50 requests in graphs of 64."""
    writer = RecordWriter(folder, Rank(tp=tp))
    for key in (KERNEL, LAST, WINDOW):
        for _ in range(10):
            writer.add(key, 300_000 if key is not WINDOW else 5_000_000, tokens=64)
    for _ in range(10):
        writer.stepped(BatchPhase.DECODE, 50)
    writer.add(STEP, 70_000_000, tokens=9000)
    writer.prove(proof(**changes))
    return writer


def collected(folder: Path) -> Samples:
    """One scrape of a new exporter."""
    return Collector(Sources(folder, ttl=60)).collect()
