"""A worker's proof, in the form of its JSON and typed."""

from typing import Any

from moe_serve.telemetry.layout import pack_proof
from moe_serve.telemetry.proof import VERSION, Proof, proof_from_json
from moe_serve.telemetry.record import RecordWriter


def proof_json(**changes: Any) -> dict[str, Any]:
    """Of GPT-OSS-120B at TP=1 on an MI355X, with `changes` of top-level keys."""
    return {
        "version": VERSION,
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
        "worker_config_digest": "0123456789abcdef",
        "device": device(),
        "layers": {"moe": 36, "sampled": [0, 35]},
        "markers": markers(),
        "shapes": [shape()],
        **changes,
    }


def device(**changes: Any) -> dict[str, Any]:
    """An MI355X with its own clock."""
    return {
        "type": "hip",
        "name": "AMD Instinct MI355X",
        "clock_hertz": 100_000_000,
        "clock_source": None,
        **changes,
    }


def markers(**changes: Any) -> dict[str, Any]:
    """Markers that are on, their overhead not yet known."""
    return {
        "state": "on",
        "reason": "",
        "backend": "hip",
        "path": "mapped",
        "pair_seconds": 2e-6,
        "bias_seconds": 7e-7,
        "budget_ratio": 0.005,
        "overhead_ratio": None,
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
        "unverified": [],
        "ksplit": 0,
        "tables_digest": None,
        "violations": [],
        **changes,
    }


def proof(**changes: Any) -> Proof:
    """The typed proof of `proof_json`."""
    return proof_from_json(proof_json(**changes))


def write_json(writer: RecordWriter, **changes: Any) -> None:
    """Put a proof in place that no worker writes, as a writer of another version might."""
    pack_proof(writer.buffer, proof_json(**changes), 1)
