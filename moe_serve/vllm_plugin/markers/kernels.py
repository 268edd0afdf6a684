"""The marker kernels: one wave each, no barrier, no fence; a call of them is two graph nodes.

The start marker notes the device's clock. The stop marker reads it again, adds the difference to
its slot's totals in device memory and stores the sealed cell where a reader looks for it; the
cell's layout, and why no order of stores is needed, is in `telemetry.layout`.

Clocks: `%globaltimer` on NVIDIA (PTX ISA 9.0, section 10), nanoseconds; `s_memrealtime` on AMD
(CDNA4 ISA, section 8.2), a constant rate that the driver tells. It is a scalar load, so its result
may be used only after `s_waitcnt lgkmcnt(0)`; Triton's own helper waits for another counter.

The layers between two markers stream gigabytes through the cache, so what a stop marker loads is
one row of 512 bytes, asked for all at once and last to be evicted: the latency of that load is most
of what it costs more than an empty kernel.
"""

import triton
import triton.language as tl

from moe_serve.telemetry import layout

CUDA, HIP = "cuda", "hip"
# A row of the state, 64 words: the slot's totals as in a cell, when it begun, whether it counts.
ROW, BEGUN, GATE = 64, 32, 33
# Rows of the table of constants: which bin a lane is (above, up to), and the seal's factors.
LOWER, UPPER, FACTOR = range(3)

_ROW, _BEGUN, _GATE = tl.constexpr(ROW), tl.constexpr(BEGUN), tl.constexpr(GATE)
_WORDS = tl.constexpr(layout.WORDS)
_UPDATES = tl.constexpr(layout.UPDATES)
_KEY = tl.constexpr(layout.KEY)
_COUNT = tl.constexpr(layout.COUNT)
_TICKS = tl.constexpr(layout.TICKS)
_LONGEST = tl.constexpr(layout.LONGEST)
_TOKENS = tl.constexpr(layout.TOKENS)
_INVALID = tl.constexpr(layout.INVALID)
_SEAL = tl.constexpr(layout.SEAL)
_LOWER, _UPPER, _FACTOR = tl.constexpr(LOWER), tl.constexpr(UPPER), tl.constexpr(FACTOR)
_STAY = tl.constexpr("evict_last")

# Typed and not specialised: one binary serves every slot, so nothing compiles while serving.
_NUMBERS = ["published", "number", "key", "tokens", "window", "window_key"]


@triton.jit
def _now(BACKEND: tl.constexpr):  # noqa: N803  # a constant, as Triton writes them
    if BACKEND == "cuda":
        return tl.inline_asm_elementwise(
            "mov.u64 $0, %globaltimer;", "=l", [], dtype=tl.int64, is_pure=False, pack=1
        )
    return tl.inline_asm_elementwise(
        "s_memrealtime $0\n\ts_waitcnt lgkmcnt(0)", "=s", [], dtype=tl.int64, is_pure=False, pack=1
    )


@triton.jit(do_not_specialize=_NUMBERS)
def start_marker(
    state,
    number: tl.int32,
    window: tl.int32,
    WINDOW: tl.constexpr,  # noqa: N803
    BACKEND: tl.constexpr,  # noqa: N803
):
    """Note the time for slot `number`, and with WINDOW for slot `window` too."""
    now = _now(BACKEND)
    tl.store(state + number * _ROW + _BEGUN, now, eviction_policy=_STAY)
    if WINDOW:
        tl.store(state + window * _ROW + _BEGUN, now, eviction_policy=_STAY)


@triton.jit(do_not_specialize=_NUMBERS)
def stop_marker(
    state,
    constants,
    published: tl.int64,
    number: tl.int32,
    key: tl.int64,
    tokens: tl.int32,
    window: tl.int32,
    window_key: tl.int64,
    SLOTS: tl.constexpr,  # noqa: N803
    BACKEND: tl.constexpr,  # noqa: N803
):
    """Add the time since slot `number` started; with two SLOTS, end slot `window` too.

    `state` [slots, 64] and `constants` [3, 32] are int64 in device memory; `published` is the
    address of the record's first slot, as the device sees it.
    """
    now = _now(BACKEND)
    lane = tl.arange(0, _WORDS)[None, :]
    first = tl.arange(0, SLOTS)[:, None] == 0
    slot = tl.where(first, number, window)
    row = state + slot * _ROW
    words = tl.load(row + lane, eviction_policy=_STAY)
    begun = tl.load(row + _BEGUN, eviction_policy=_STAY)
    gate = tl.load(row + _GATE, eviction_policy=_STAY)
    updates = tl.load(row + _UPDATES, eviction_policy=_STAY) + 1
    lower = tl.load(constants + _LOWER * _WORDS + lane, eviction_policy=_STAY)
    upper = tl.load(constants + _UPPER * _WORDS + lane, eviction_policy=_STAY)
    factor = tl.load(constants + _FACTOR * _WORDS + lane, eviction_policy=_STAY)

    took = now - begun
    sound = took >= 0
    step = tl.where(lane == _UPDATES, 1, 0)
    step = tl.where((lane == _COUNT) & sound, 1, step)
    step = tl.where((lane == _INVALID) & (took < 0), 1, step)
    step = tl.where((lane == _TICKS) & sound, took, step)
    step = tl.where((lane == _TOKENS) & sound, tokens, step)
    step = tl.where((lower < took) & (took <= upper), 1, step)
    words += step
    words = tl.where(lane == _LONGEST, tl.maximum(words, took), words)
    words = tl.where(lane == _KEY, tl.where(first, key, window_key), words)
    # The last factor is the seal's salt.
    seal = tl.sum(tl.where(lane == _SEAL, factor, words * factor), axis=1)[:, None]
    words = tl.where(lane == _SEAL, seal, words)

    counts = (gate != 0) & (lane < _WORDS)
    tl.store(row + lane, words, mask=counts, eviction_policy=_STAY)
    cell = published.to(tl.pointer_type(tl.int64)) + (slot * 2 + (updates & 1)) * _WORDS
    tl.store(cell + lane, words, mask=counts)
