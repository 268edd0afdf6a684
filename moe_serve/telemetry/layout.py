"""The record's bytes: pure functions between values and a buffer.

Nothing here depends on the order in which stores become visible, since a GPU writes too. What
changes lives in a pair of cells, written in turn; each cell ends with a seal, a checksum of its
words. A reader takes the newest cell whose seal holds: a cell torn by a reader's bad moment, or by
the writer's death, leaves the one before it.

    0        preamble: magic, version, byte order, size
    64       header: two cells
    4096     proof: two areas of a count, a length, a CRC-32 and UTF-8 JSON
    69632    slots: two cells each

A cell is 32 little-endian words of 64 bits; in a slot's cell: updates, key, count, ticks, longest,
tokens, invalid, 24 of histogram, seal. A schedule's slot keeps in `longest` when its last step was.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache
from operator import mul
from typing import Any

from moe_serve.telemetry.slots import (
    HISTOGRAM_SECONDS,
    BatchPhase,
    GraphMode,
    ModelRole,
    Rank,
    SlotKey,
    SlotKind,
    Totals,
)

MAGIC = b"MOESERVE"
VERSION = 2
CAPACITY = 2048
WORDS = 32
CELL_BYTES = WORDS * 8
SLOT_BYTES = 2 * CELL_BYTES

UPDATES, KEY, COUNT, TICKS, LONGEST, TOKENS, INVALID, HISTOGRAM = range(8)
BINS = len(HISTOGRAM_SECONDS) + 1
SEAL = HISTOGRAM + BINS

_PREAMBLE = struct.Struct("<8sIIQ")
_BYTE_ORDER = 0x01020304
_CELL = struct.Struct(f"<{WORDS}Q")
_PAIR = struct.Struct(f"<{2 * WORDS}Q")
_HEADER_AT = 64
_PROOF_AT, _PROOF_BYTES = 4096, 32768
_PROOF = struct.Struct("<QII")
SLOTS_AT = _PROOF_AT + 2 * _PROOF_BYTES
SIZE = SLOTS_AT + CAPACITY * SLOT_BYTES

_MASK = (1 << 64) - 1
_KINDS, _MODES, _PHASES, _MODELS = (
    tuple(SlotKind),
    tuple(GraphMode),
    tuple(BatchPhase),
    tuple(ModelRole),
)
_NO_LAYER = 0xFFFF
_KIND_AT, _MODE_AT, _PHASE_AT, _MODEL_AT = 60, 56, 52, 48


def _splitmix(seed: int) -> int:
    """One odd 64-bit constant (splitmix64's finaliser: Steele, Lea, Flood 2014)."""
    word = (seed + 1) * 0x9E3779B97F4A7C15 & _MASK
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _MASK
    return (word ^ word >> 31) | 1


# Odd, so that a change of any one word changes the seal.
SEAL_FACTORS = tuple(_splitmix(index) for index in range(SEAL))
SEAL_SALT = _splitmix(SEAL)


class Flags(IntFlag):
    """What a reader should know of the writer."""

    NONE = 0
    TELEMETRY_FAILED = 1


class BadRecord(ValueError):
    """A buffer that is no whole record; `reason` is one word for a metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All that is neither the proof nor a slot; times are nanoseconds of wall clock."""

    rank: Rank
    pid: int
    started: int
    generation: int
    recaptures: int
    clock_hertz: int
    slots_used: int
    slots_dropped: int
    flags: Flags


def seal(words: Sequence[int]) -> int:
    """The checksum of a cell's words before its last one."""
    total: int = SEAL_SALT + sum(map(mul, SEAL_FACTORS, words))
    return total & _MASK


def pack_cells(buffer: Any, offset: int, words: Sequence[int]) -> None:
    """Write the cell whose turn it is: `words` lead with their number of updates, from 1."""
    turn = words[UPDATES] & 1
    padded = [*words, *[0] * (SEAL - len(words))]
    _CELL.pack_into(buffer, offset + turn * CELL_BYTES, *padded, seal(padded))


def unpack_cells(buffer: bytes, offset: int) -> tuple[int, ...] | None:
    """The newest whole cell of a pair; None: nothing was ever written.

    Raises:
        ValueError: neither cell is whole.
    """
    words = _PAIR.unpack_from(buffer, offset)
    cells = words[:WORDS], words[WORDS:]
    newest = cells[1] if cells[1][UPDATES] > cells[0][UPDATES] else cells[0]
    for cell in (newest, *cells):
        if cell[UPDATES] and cell[SEAL] == seal(cell[:SEAL]):
            return cell
    if any(words):
        raise ValueError("torn")
    return None


def pack_preamble(buffer: Any) -> None:
    """Write what never changes."""
    _PREAMBLE.pack_into(buffer, 0, MAGIC, VERSION, _BYTE_ORDER, SIZE)


def pack_header(buffer: Any, header: Header, updates: int) -> None:
    """Write the header."""
    rank = header.rank
    words = (
        updates, rank.dp, rank.pp, rank.tp, header.pid, header.started, header.generation,
        header.recaptures, header.clock_hertz, header.slots_used, header.slots_dropped,
        int(header.flags),
    )  # fmt: skip
    pack_cells(buffer, _HEADER_AT, words)


def unpack_header(buffer: bytes, size: int) -> Header:
    """The header of a record, from the first bytes of a file of `size` bytes.

    Raises:
        BadRecord: another magic, version, byte order or size, or no whole header.
    """
    _check_preamble(buffer, size)
    try:
        cell = unpack_cells(buffer, _HEADER_AT)
    except ValueError:
        cell = None
    if cell is None or cell[9] > CAPACITY or not cell[8]:
        raise BadRecord("not_a_record", "its header is damaged")
    return Header(
        rank=Rank(dp=cell[1], pp=cell[2], tp=cell[3]),
        pid=cell[4],
        started=cell[5],
        generation=cell[6],
        recaptures=cell[7],
        clock_hertz=cell[8],
        slots_used=cell[9],
        slots_dropped=cell[10],
        flags=Flags(cell[11] & Flags.TELEMETRY_FAILED),
    )


def _check_preamble(buffer: bytes, size: int) -> None:
    if not buffer.startswith(MAGIC):
        raise BadRecord("not_a_record", "it is no moe-serve record")
    if len(buffer) < _PREAMBLE.size:
        raise BadRecord("truncated", f"it has {size} bytes, a record has {SIZE}")
    _, version, order, declared = _PREAMBLE.unpack_from(buffer)
    if order != _BYTE_ORDER:
        raise BadRecord("endianness", "it was written with another byte order")
    if version != VERSION:
        raise BadRecord("version", f"it has version {version}, this reader knows {VERSION}")
    if declared != SIZE or size != SIZE or len(buffer) < SLOTS_AT:
        raise BadRecord("truncated", f"it has {size} bytes, a record has {SIZE}")


def pack_proof(buffer: Any, proof: Mapping[str, object], updates: int) -> None:
    """Write the proof into the area whose turn it is.

    Raises:
        ValueError: it is larger than its place, or no JSON.
    """
    text = json.dumps(proof, separators=(",", ":"), allow_nan=False).encode()
    room = _PROOF_BYTES - _PROOF.size
    if len(text) > room:
        raise ValueError(f"the proof has {len(text)} bytes, there is room for {room}")
    start = _PROOF_AT + (updates & 1) * _PROOF_BYTES
    buffer[start + _PROOF.size : start + _PROOF.size + len(text)] = text
    _PROOF.pack_into(buffer, start, updates, len(text), _crc(updates, text))


def unpack_proof(buffer: bytes) -> dict[str, Any]:
    """The newest whole proof; empty if none was ever written.

    Raises:
        BadRecord: neither is whole.
    """
    found: list[tuple[int, bytes]] = []
    written = False
    for turn in (0, 1):
        start = _PROOF_AT + turn * _PROOF_BYTES
        updates, length, crc = _PROOF.unpack_from(buffer, start)
        text = buffer[start + _PROOF.size : start + _PROOF.size + min(length, _PROOF_BYTES)]
        written = written or updates != 0
        if updates and crc == _crc(updates, text):
            found.append((updates, text))
    if not found and written:
        raise BadRecord("proof", "its proof is damaged")
    try:
        proof = json.loads(max(found)[1]) if found else {}
    except (ValueError, RecursionError) as error:
        raise BadRecord("proof", "its proof is no JSON") from error
    if not isinstance(proof, dict):
        raise BadRecord("proof", "its proof is no JSON object")
    return proof


def _crc(updates: int, text: bytes) -> int:
    return zlib.crc32(text, updates & 0xFFFFFFFF)


def pack_key(key: SlotKey) -> int:
    """A slot's key as one word below 2**63."""
    word = key.bucket | (_NO_LAYER if key.layer is None else key.layer) << 24 | key.ubatch << 40
    word |= _KINDS.index(key.kind) << _KIND_AT | _MODES.index(key.mode) << _MODE_AT
    return word | _PHASES.index(key.phase) << _PHASE_AT | _MODELS.index(key.model) << _MODEL_AT


@lru_cache(maxsize=4096)
def unpack_key(word: int) -> SlotKey:
    """A slot's key.

    Raises:
        ValueError: no writer writes such a word.
    """
    layer = word >> 24 & 0xFFFF
    try:
        kind, mode = _KINDS[word >> _KIND_AT], _MODES[word >> _MODE_AT & 0xF]
        phase, model = _PHASES[word >> _PHASE_AT & 0xF], _MODELS[word >> _MODEL_AT & 0xF]
    except IndexError as error:
        raise ValueError("it is of no known kind") from error
    return SlotKey(
        kind=kind,
        mode=mode,
        phase=phase,
        model=model,
        ubatch=word >> 40 & 0xFF,
        layer=None if layer == _NO_LAYER else layer,
        bucket=word & 0xFFFFFF,
    )


def slot_offset(number: int) -> int:
    """Where a slot's pair of cells begins, in bytes."""
    return SLOTS_AT + number * SLOT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLayout:
    """One slot as read. `last`: wall-clock nanoseconds of the last step, in a schedule's slot."""

    key: SlotKey
    totals: Totals
    last: int | None


def unpack_slot(buffer: bytes, offset: int, clock_hertz: int) -> SlotLayout | None:
    """The slot at `offset`; None: it was never hit.

    Raises:
        ValueError: no cell of it is whole.
    """
    cell = unpack_cells(buffer, offset)
    if cell is None:
        return None
    key = unpack_key(cell[KEY])
    timed = key.kind is not SlotKind.SCHEDULE
    totals = Totals(
        count=cell[COUNT],
        seconds=cell[TICKS] / clock_hertz,
        max_seconds=cell[LONGEST] / clock_hertz if timed else 0.0,
        tokens=cell[TOKENS],
        invalid=cell[INVALID],
        histogram=cell[HISTOGRAM:SEAL],
    )
    return SlotLayout(key=key, totals=totals, last=None if timed else cell[LONGEST])
