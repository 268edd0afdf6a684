"""What a fused-MoE call must do at least, and what a device can do at most. Pure.

A call has `rows` of `top_k` experts each. Three projections of hidden x intermediate a row and
expert make 6 operations a weight element; weights are MXFP4, 4 bits and an 8-bit scale for 32 of
them. Of E experts, uniform routing reaches E (1 - (1 - k/E)^rows): an expectation, which skewed
routing stays below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from moe_serve.telemetry.proof import ShapeProof

_BITS_A_WEIGHT = 4.25
# Beyond these no kernel is meant, and modelled work would leave a float's range.
_LARGEST, _MOST_TIMES = 2**24, 64
_ACTIVATION_BYTES = 2  # bf16 in and out, whatever the product's inputs are converted to


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


def modelled_shape(shapes: Sequence[ShapeProof]) -> ShapeProof | None:
    """The one shape of a rank's calls; None: there are several, or no kernel has such sizes."""
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    sizes = (shape.hidden, shape.live_neurons, shape.padded.hidden, shape.all_experts)
    if not all(0 < size <= _LARGEST for size in (*sizes, shape.experts, shape.top_k)):
        return None
    if max(shape.top_k, shape.experts) > shape.all_experts:
        return None
    return shape if 1 / _MOST_TIMES < shape.bytes_ratio < _MOST_TIMES else None


@lru_cache(maxsize=4096)
def work(shape: ShapeProof, rows: float, *, executed: bool) -> Work:
    """Of one call of `rows` rows; `executed`: with the padding that the sent pads leave in."""
    ratio = shape.bytes_ratio if executed else 1.0
    hidden = shape.padded.hidden if executed else shape.hidden
    elements = 3 * shape.hidden * shape.live_neurons * ratio
    assignments = rows * shape.top_k * shape.experts / shape.all_experts
    reached = shape.experts * (1 - (1 - shape.top_k / shape.all_experts) ** rows)
    activations = _ACTIVATION_BYTES * (2 * rows * hidden + 2 * assignments * shape.live_neurons)
    return Work(
        flops=2 * assignments * elements,
        bytes=reached * elements * _BITS_A_WEIGHT / 8 + activations,
    )


def floor_seconds(done: Work, bytes_per_second: float, flops_per_second: float) -> float:
    """The least time for such work at these peaks."""
    return max(done.bytes / bytes_per_second, done.flops / flops_per_second)
