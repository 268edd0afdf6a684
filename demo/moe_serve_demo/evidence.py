"""What an arm really did, from the proof in its own record: never from what it was told to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_serve.telemetry.record import read_records
from moe_serve_demo.errors import DemoError
from moe_serve_demo.servers import DemoServer


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFacts:
    """One arm as its worker reports it; pads are `hidden/neurons` of one rank.

    `bytes_ratio` is the decode kernel's fetched weight bytes over the unpadded weights'.
    """

    name: str
    policy: str
    max_neuron_loss: float
    vllm: str
    aiter: str
    raw: str
    upstream: str
    sent: str
    lost_neurons: int
    live_neurons: int
    bytes_ratio: float
    safe: bool
    intercepted_calls: int

    @property
    def summary(self) -> str:
        """One line for the screen."""
        lost = (
            f"{self.lost_neurons} of {self.live_neurons} neurons lost"
            if self.lost_neurons
            else "no neuron lost"
        )
        return (
            f"policy {self.policy}: pads {self.raw} raw, {self.sent} sent, {lost}, "
            f"{self.bytes_ratio:.3f} of the ideal bytes"
        )


def arm_facts(server: DemoServer) -> ArmFacts:
    """The arm's own proof.

    Raises:
        DemoError: it left none, so the plugin was not in force.
    """
    records = read_records(server.records)
    shapes: list[Mapping[str, Any]] = [
        shape for record in records for shape in record.proof.get("shapes", ())
    ]
    if len(records) != 1 or len(shapes) != 1:
        raise DemoError(
            f"{server.arm.name}: no proof that its pads are in force ({len(records)} records, "
            f"{len(shapes)} shapes); its log is {server.log}"
        )
    proof, shape = records[0].proof, shapes[0]
    return ArmFacts(
        name=server.arm.name,
        policy=str(proof["policy"]),
        max_neuron_loss=float(proof["max_neuron_loss"]),
        vllm=str(proof["vllm"]),
        aiter=str(proof["aiter"]),
        raw=_pads(shape["raw"]),
        upstream=_pads(shape["upstream"]),
        sent=_pads(shape["sent"]),
        lost_neurons=int(shape["lost_neurons"]),
        live_neurons=int(shape["live_neurons"]),
        bytes_ratio=float(shape["bytes_ratio"]),
        safe=bool(shape["safe"]),
        intercepted_calls=int(proof["intercepted_calls"]),
    )


def _pads(value: Mapping[str, int]) -> str:
    return f"{value['hidden']}/{value['intermediate']}"


def differences(stable: ArmFacts, canary: ArmFacts) -> tuple[str, ...]:
    """What differs between the arms and is not under test."""
    return tuple(
        f"{key}: {getattr(stable, key)} and {getattr(canary, key)}"
        for key in ("vllm", "aiter", "raw", "upstream", "live_neurons")
        if getattr(stable, key) != getattr(canary, key)
    )
