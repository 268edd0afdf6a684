"""What a fused-MoE call must do at least, and what a device can do at most. Pure.

A call has `rows` of `top_k` experts each. Three projections of hidden x intermediate a row and
expert make 6 operations a weight element; weights are MXFP4, 4 bits and an 8-bit scale for 32 of
them. Of E experts, uniform routing reaches E (1 - (1 - k/E)^rows): an expectation, which skewed
routing stays below.
"""

from dataclasses import dataclass
from functools import lru_cache

_BITS_A_WEIGHT = 4.25
_ACTIVATION_BYTES = 2  # bf16 in and out, whatever the product's inputs are converted to


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape:
    """One rank's fused-MoE call. `executed_ratio`: weight elements touched over live ones."""

    hidden: int
    intermediate: int
    experts: int
    all_experts: int
    top_k: int
    padded_hidden: int
    executed_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of one call."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """A device's dense peaks per second, and who says so."""

    bytes: float
    bf16: float
    fp4: float | None
    source: str

    def flops(self, dtype: str) -> float | None:
        """Operations per second in `bf16` or `fp4`."""
        return self.fp4 if dtype == "fp4" else self.bf16


# By a word of the device's name: a GH200 is no H200, and an H200 NVL computes less.
_PEAKS = {
    # 256 CU x 2.4 GHz x 4096 and 16384 operations a clock; HBM3E.
    "MI355X": Peaks(bytes=8.0e12, bf16=2.5e15, fp4=10.1e15, source="AMD MI355X data sheet"),
    "MI350X": Peaks(bytes=8.0e12, bf16=2.3e15, fp4=9.2e15, source="AMD MI350X data sheet"),
    "MI325X": Peaks(bytes=6.0e12, bf16=1.307e15, fp4=None, source="AMD MI325X data sheet"),
    "MI300X": Peaks(bytes=5.3e12, bf16=1.307e15, fp4=None, source="AMD MI300X data sheet"),
    "H200": Peaks(bytes=4.8e12, bf16=0.9895e15, fp4=None, source="NVIDIA H200 data sheet"),
}
_DTYPES = {"w4a16": "bf16", "w4a4": "fp4"}


def peaks_of(device: str) -> Peaks | None:
    """A known device's peaks; None: no roofline is better than a made-up one."""
    words = device.replace("_", " ").split()
    if "NVL" in words:
        return None
    return next((peaks for word, peaks in _PEAKS.items() if word in words), None)


def dtype_of(quant: str) -> str | None:
    """What the products of a quantisation scheme are computed in."""
    return _DTYPES.get(quant)


@lru_cache(maxsize=4096)
def work(shape: MoeShape, rows: float, *, executed: bool) -> Work:
    """Of one call; `executed`: with the padding that the sent pads leave in."""
    ratio = shape.executed_ratio if executed else 1.0
    hidden = shape.padded_hidden if executed else shape.hidden
    elements = 3 * shape.hidden * shape.intermediate * ratio
    share = shape.experts / shape.all_experts
    assignments = rows * shape.top_k * share
    reached = shape.experts * (1 - (1 - shape.top_k / shape.all_experts) ** rows)
    activations = _ACTIVATION_BYTES * (2 * rows * hidden + 2 * assignments * shape.intermediate)
    return Work(
        flops=2 * assignments * elements,
        bytes=reached * elements * _BITS_A_WEIGHT / 8 + activations,
    )


def floor_seconds(done: Work, bytes_per_second: float, flops_per_second: float) -> float:
    """The least time for such work at these peaks."""
    return max(done.bytes / bytes_per_second, done.flops / flops_per_second)
