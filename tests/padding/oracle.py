"""What AITER's kernels leave out, batch by batch, neuron by neuron and column by column.

The oracle of the padding contract: it imports nothing of it and has no formula in common with it.
AITER's dispatcher is followed for every batch size that it tells apart, and each kernel's loads are
written out as sets of rows and columns, from the same sources that the contract names. Versions
are tuples such as `(0, 1, 15, 3)` for 0.1.15.post3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Version = tuple[int, int, int, int]
TILE = 256


@dataclass(frozen=True)
class Layer:
    """One rank's experts and how they are stored; `bias` None: with or without."""

    hidden: int
    width: int
    padded_hidden: int
    padded_width: int
    experts: int
    top_k: int
    weights_only: bool = True  # w4a16, else w4a4
    swiglu: bool = True
    interleaved: bool = True
    bias: bool | None = True


@dataclass(frozen=True)
class Launch:
    """Two kernels that AITER launches for one batch."""

    first: str  # cktile, flydsl, or exact: what takes pads as they are; whole: takes none
    second: str
    splits: int = 1
    tile: int = 256
    told: bool = True
    covers: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a launch leaves out: live weights `lost`, reads of what nothing wrote, and loads."""

    lost: bool
    unwritten_read: bool
    unknown: bool
    rows: int
    columns: int
    w2_rows: int
    w2_columns: int

    @property
    def right(self) -> bool:
        return not (self.lost or self.unwritten_read or self.unknown)

    @property
    def loads(self) -> tuple[int, int, int, int]:
        return (self.rows, self.columns, self.w2_rows, self.w2_columns)


@lru_cache(maxsize=64)
def launches(version: Version, layer: Layer, ksplit: int) -> frozenset[Launch]:
    """Every launch over all batch sizes from 1 to 4096, in powers of two as AITER rounds them."""
    found: set[Launch] = set()
    for power in range(13):
        batch = 2**power
        # A batch of 129 is rounded up to 256 but still counts as 129 against the bounds.
        for tokens in {batch // 2 + 1, batch}:
            found |= set(_dispatch(version, layer, batch, tokens, ksplit))
    return frozenset(found)


def _activations(version: Version, layer: Layer, tokens: int) -> str:
    if version < (0, 1, 14, 0):
        if not layer.swiglu:
            return "fp4"
        return "bf16" if tokens < 512 else "fp8"
    if not layer.weights_only and not layer.swiglu:
        return "fp4"
    if layer.interleaved:
        return "bf16" if tokens < 256 else "fp8"
    if layer.swiglu:
        return "bf16" if tokens < 256 else "fp4"
    return "bf16" if layer.weights_only and tokens < 256 else "fp4"


def _dispatch(
    version: Version, layer: Layer, batch: int, tokens: int, ksplit: int
) -> Iterator[Launch]:
    kind = _activations(version, layer, tokens)
    row = False if kind == "bf16" else _table_has_a_row(layer)
    if row is not False:
        yield from _from_table(version, layer, looked_up=row is True)
    if row is not True:
        splits = max(1, ksplit) if ksplit else _own_splits(batch, layer)
        if layer.swiglu:
            yield from _swiglu(version, layer, kind, splits)
        else:
            yield from _silu(version, layer, kind, splits)


def _from_table(version: Version, layer: Layer, *, looked_up: bool) -> Iterator[Launch]:
    yield from _flydsl(version, layer)
    if layer.weights_only and version >= (0, 1, 18, 0) and layer.interleaved and layer.swiglu:
        yield from _flydsl(version, layer, second="cktile")
    if layer.weights_only and version >= (0, 1, 17, 0) and not looked_up:
        yield Launch("exact", "exact")


def _swiglu(version: Version, layer: Layer, kind: str, splits: int) -> Iterator[Launch]:
    if version < (0, 1, 14, 0):
        yield Launch("cktile", "cktile", splits=splits)
    elif layer.interleaved:
        yield Launch("cktile", "cktile")
    elif kind == "bf16":
        yield from _separated_bf16(version, layer, max(2, splits))
    elif version >= (0, 1, 16, 0):
        yield from _flydsl(version, layer)
    else:
        yield Launch("whole", "whole")


def _silu(version: Version, layer: Layer, kind: str, splits: int) -> Iterator[Launch]:
    if kind != "bf16" and version >= (0, 1, 16, 0):
        yield from _flydsl(version, layer)
    elif splits > 1:
        yield Launch("cktile", "cktile", splits=splits)
    else:
        yield Launch("whole", "whole")


def _separated_bf16(version: Version, layer: Layer, splits: int) -> Iterator[Launch]:
    odd = layer.padded_width % TILE != 0
    fits = layer.padded_width % 128 == 0 and layer.padded_hidden % TILE == 0
    if version >= (0, 1, 24, 1) and odd and fits:
        yield from _flydsl(version, layer)
    else:
        yield Launch("cktile", "cktile", splits=splits)


def _flydsl(version: Version, layer: Layer, second: str = "flydsl") -> Iterator[Launch]:
    if version < (0, 1, 15, 0):
        told = False
    elif version < (0, 1, 15, 3):
        told = True
    else:
        told = layer.bias is not True
    for tile in (64, 128, 256) if told else (256,):
        yield Launch("flydsl", second, tile=tile, told=told, covers=version >= (0, 1, 15, 3))


def _table_has_a_row(layer: Layer) -> bool | None:
    """AITER's own tables were looked up for GPT-OSS alone; None: nobody looked."""
    if layer.hidden != 2880 or layer.padded_hidden != 3072 or layer.experts > 128:
        return None
    if not layer.swiglu or not layer.weights_only:
        return None
    widths = {3072} if layer.interleaved else {3072, 1536, 512}
    return layer.experts == 128 and layer.padded_width in widths


def _own_splits(batch: int, layer: Layer) -> int:
    """AITER's `get_ksplit` on 256 compute units, tried from the largest split down."""
    rows = batch * layer.top_k
    if rows > layer.experts:
        return 1
    groups = rows * ((layer.padded_width + 127) // 128)
    if groups >= 256:
        return 1
    most = (256 + groups - 1) // groups
    whole = [n for n in range(2, most + 1) if layer.padded_hidden % n == 0]
    fitting = [n for n in whole if (layer.padded_hidden // n) % TILE == 0]
    return max(fitting, default=1)


@lru_cache(maxsize=10_000)
def outcome(launch: Launch, layer: Layer, hidden_pad: int, width_pad: int) -> Outcome:
    """What one launch leaves out when it is told these pads."""
    gate, up, written = _first_rows(launch, layer, width_pad)
    columns, unknown = _first_columns(launch, layer, hidden_pad)
    w2_rows = _second_rows(launch, layer, hidden_pad)
    w2_columns = _second_columns(launch, layer, width_pad)
    live_neuron = np.arange(layer.padded_width) < layer.width
    live_hidden = np.arange(layer.padded_hidden) < layer.hidden
    read = live_neuron & gate & up & written & w2_columns
    return Outcome(
        lost=bool(
            (live_neuron & ~read).any()
            or (live_hidden & ~columns).any()
            or (live_hidden & ~w2_rows).any()
        ),
        unwritten_read=bool((w2_columns & ~written).any()),
        unknown=unknown,
        rows=int(gate.sum() + up.sum()),
        columns=int(columns.sum()),
        w2_rows=int(w2_rows.sum()),
        w2_columns=int(w2_columns.sum()),
    )


@lru_cache(maxsize=5_000)
def _first_rows(
    launch: Launch, layer: Layer, pad: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gate rows that are loaded, up rows that are loaded, neurons that are written."""
    width = layer.padded_width
    everything = np.ones(width, dtype=bool)
    if launch.first == "cktile":
        stored = _stored_order(layer)
        kept = np.ones(2 * width, dtype=bool)
        cut = 2 * (pad // 64 * 64)
        kept[max(0, 2 * width - cut) :] = False
        loaded = np.empty(2 * width, dtype=bool)
        loaded[stored] = kept
        return loaded[:width], loaded[width:], everything
    if launch.first == "flydsl" and launch.told:
        written = np.zeros(width, dtype=bool)
        written[: _written(launch, layer, pad)] = True
        return written, written, written
    if launch.first == "exact":
        kept = np.arange(width) < width - pad
        return kept, kept, everything
    return everything, everything, everything


def _stored_order(layer: Layer) -> np.ndarray:
    """For each stored row, which row of [gate; up] it is."""
    width = layer.padded_width
    if not layer.interleaved:
        return np.arange(2 * width)
    order = []
    for block in range(0, width, 16):
        order += list(range(block, min(block + 16, width)))
        order += [width + row for row in range(block, min(block + 16, width))]
    return np.array(order)


def _written(launch: Launch, layer: Layer, pad: int) -> int:
    """Neurons that FlyDSL's grid of stage 1 writes: whole tiles of columns, gate and up."""
    live = layer.padded_width - pad
    columns = 2 * live
    if launch.covers:
        while (columns - live) % (TILE // 2):
            columns += 1
    neurons = 0
    if layer.interleaved:
        tiles = 0
        while tiles * launch.tile < columns:
            tiles += 1
        neurons = tiles * launch.tile // 2
    else:
        neurons = (columns + 2 * launch.tile - 1) // launch.tile // 2 * launch.tile
    return min(neurons, layer.padded_width)


@lru_cache(maxsize=5_000)
def _first_columns(launch: Launch, layer: Layer, pad: int) -> tuple[np.ndarray, bool]:
    """Hidden columns that stage 1 loads, and whether that is not known."""
    hidden = layer.padded_hidden
    loaded = np.ones(hidden, dtype=bool)
    skipped = pad // 128 * 128
    if launch.first == "cktile":
        if launch.splits > 1 and hidden % (launch.splits * TILE):
            return loaded, skipped > 0
        part = hidden // launch.splits
        for start in range(0, hidden, part) if part else ():
            _drop_tail(loaded, start, start + part, skipped)
    elif launch.first == "flydsl" and launch.told:
        gone = pad % TILE // 128 * 128
        loaded[hidden - gone :] = False
    return loaded, False


def _drop_tail(loaded: np.ndarray, start: int, end: int, skipped: int) -> None:
    """The last tile of an even number of tiles leaves its end out."""
    tiles = (end - start) // TILE
    if tiles and tiles % 2 == 0:
        last_tile = end - TILE
        loaded[max(last_tile, end - skipped) : end] = False


@lru_cache(maxsize=5_000)
def _second_rows(launch: Launch, layer: Layer, pad: int) -> np.ndarray:
    hidden = layer.padded_hidden
    loaded = np.ones(hidden, dtype=bool)
    if launch.second == "cktile":
        loaded[max(0, hidden - pad // 64 * 64) :] = False
    elif launch.second == "flydsl" and launch.told:
        tiles = 0
        while tiles * launch.tile < hidden - pad:
            tiles += 1
        loaded[tiles * launch.tile :] = False
    return loaded


@lru_cache(maxsize=5_000)
def _second_columns(launch: Launch, layer: Layer, pad: int) -> np.ndarray:
    width = layer.padded_width
    loaded = np.ones(width, dtype=bool)
    skipped = pad // 128 * 128
    if launch.second == "cktile":
        _drop_tail(loaded, 0, width, skipped)
    elif launch.second == "flydsl" and launch.told:
        loaded[width - min(TILE, skipped) :] = False
    elif launch.second == "exact":
        loaded[width - pad :] = False
    return loaded


def wrong_anyway(
    version: Version, layer: Layer, ksplit: int, *, vllm_tells_the_layout: bool
) -> bool:
    """Whether the answers are wrong, or there are none, whatever the pads."""
    found = launches(version, layer, ksplit)
    split = any(launch.first == "cktile" and launch.splits > 1 for launch in found)
    gelu = split and layer.swiglu and (0, 1, 12, 0) <= version < (0, 1, 13, 1)
    second = any(launch.second == "cktile" for launch in found)
    scales = second and layer.padded_width % TILE != 0
    shape = second and layer.padded_hidden % TILE != 0
    return gelu or scales or shape or not _order_is_read(version, layer, vllm_tells_the_layout)


def _order_is_read(version: Version, layer: Layer, told: bool) -> bool:
    if version < (0, 1, 14, 0):
        return layer.interleaved == layer.swiglu
    return told or not layer.interleaved
