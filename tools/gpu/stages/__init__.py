"""The stages by name. Each is a function without arguments that returns what it found, as JSON."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a stage's function is, and its time limit in seconds."""

    module: str
    function: str
    seconds: float


STAGES = {
    "machine": Stage("machine", "machine", 90),
    "selftest": Stage("machine", "selftest", 90),
    "conformance": Stage("kernel", "conformance", 240),
    "speed": Stage("kernel", "speed", 180),
    "tune": Stage("kernel", "tune", 240),
    "counts": Stage("counts", "counts", 240),
    "piecewise": Stage("counts", "piecewise", 240),
    "speculative": Stage("counts", "speculative", 240),
    "sleeping": Stage("counts", "sleeping", 240),
    "second_runner": Stage("counts", "second_runner", 240),
    "truth": Stage("truth", "truth", 150),
    "cost": Stage("cost", "cost", 240),
    "large": Stage("large", "large", 300),
    "chain": Stage("chain", "chain", 480),
    "gate": Stage("gate", "gate", 480),
    "accept": Stage("accept", "accept", 480),
}
