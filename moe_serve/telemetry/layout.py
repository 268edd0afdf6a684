"""The record's bytes: pure functions between values and a buffer.

Little-endian, fixed offsets, one version number; a reader of another version refuses.

    0       header: magic, version, capacity, sequence, generation, heartbeat, pid, rank, flags, ...
    128     the proof: a length, then UTF-8 JSON
    65536   slots: kind, mode, layer, bucket, count, nanoseconds, longest
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Any

MAGIC = b"MOESERVE"
VERSION = 1
CAPACITY = 4096

_HEADER = struct.Struct("<8sIIQQdIHHHHIIQ")
_PROOF_AT, _PROOF_LENGTH = 128, struct.Struct("<I")
_SLOTS_AT = 65536
_SLOT = struct.Struct("<BBhIQQQ")
SIZE = _SLOTS_AT + CAPACITY * _SLOT.size
SEQUENCE_AT, SEQUENCE = 16, struct.Struct("<Q")


class Kind(StrEnum):
    """What a slot counts."""

    KERNEL = "kernel"
    STEP = "step"


class Mode(StrEnum):
    """`decode`: every request scheduled one token. `mixed`: anything else."""

    DECODE = "decode"
    MIXED = "mixed"


class Flags(IntFlag):
    """What a reader should know of the writer."""

    NONE = 0
    TELEMETRY_FAILED = 1


_KINDS, _MODES = tuple(Kind), tuple(Mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Which worker of a deployment writes a record."""

    dp: int = 0
    pp: int = 0
    tp: int = 0

    @property
    def file_name(self) -> str:
        """One file a rank."""
        return f"dp{self.dp}-pp{self.pp}-tp{self.tp}.record"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotKey:
    """One series of totals: `bucket` is the exact number of tokens; steps have layer None."""

    kind: Kind
    layer: int | None
    bucket: int
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How often, how long in all, and the longest single one; seconds."""

    count: int
    seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All that is not the proof or a slot; `heartbeat_seconds` is wall-clock time."""

    generation: int
    heartbeat_seconds: float
    pid: int
    rank: Rank
    flags: Flags
    slots_used: int
    slots_dropped: int


def pack_header(buffer: Any, header: Header, sequence: int) -> None:
    """Write the header; `sequence` is odd while a writer is at work."""
    rank = header.rank
    _HEADER.pack_into(
        buffer, 0, MAGIC, VERSION, CAPACITY, sequence, header.generation,
        header.heartbeat_seconds, header.pid, rank.dp, rank.pp, rank.tp, 0, int(header.flags),
        header.slots_used, header.slots_dropped,
    )  # fmt: skip


def unpack_header(buffer: bytes) -> Header:
    """The header of a record.

    Raises:
        ValueError: another magic, version or size.
    """
    if len(buffer) < _HEADER.size or not buffer.startswith(MAGIC):
        raise ValueError("it is no moe-serve record")
    fields = _HEADER.unpack_from(buffer, 0)
    if fields[1] != VERSION:
        raise ValueError(f"it has version {fields[1]}, this reader knows {VERSION}")
    if fields[2] != CAPACITY or len(buffer) != SIZE:
        raise ValueError(f"it has {len(buffer)} bytes, a record has {SIZE}: it is cut short")
    return Header(
        generation=fields[4],
        heartbeat_seconds=fields[5],
        pid=fields[6],
        rank=Rank(dp=fields[7], pp=fields[8], tp=fields[9]),
        flags=Flags(fields[11]),
        slots_used=fields[12],
        slots_dropped=fields[13],
    )


def sequence_of(buffer: Any) -> int:
    """The seqlock's count: even at rest."""
    return int(SEQUENCE.unpack_from(buffer, SEQUENCE_AT)[0])


def pack_proof(buffer: Any, proof: Mapping[str, object]) -> None:
    """Write the proof.

    Raises:
        ValueError: it is larger than its place.
    """
    text = json.dumps(proof, separators=(",", ":"), allow_nan=False).encode()
    room = _SLOTS_AT - _PROOF_AT - _PROOF_LENGTH.size
    if len(text) > room:
        raise ValueError(f"the proof has {len(text)} bytes, there is room for {room}")
    _PROOF_LENGTH.pack_into(buffer, _PROOF_AT, len(text))
    start = _PROOF_AT + _PROOF_LENGTH.size
    buffer[start : start + len(text)] = text


def unpack_proof(buffer: bytes) -> dict[str, Any]:
    """The proof.

    Raises:
        ValueError: it is not what a writer writes.
    """
    (length,) = _PROOF_LENGTH.unpack_from(buffer, _PROOF_AT)
    start = _PROOF_AT + _PROOF_LENGTH.size
    if start + length > _SLOTS_AT:
        raise ValueError("its proof is longer than its place")
    proof = json.loads(buffer[start : start + length] or b"{}")
    if not isinstance(proof, dict):
        raise ValueError("its proof is no JSON object")
    return proof


def pack_slot(
    buffer: Any, number: int, key: SlotKey, *, count: int, nanoseconds: int, longest: int
) -> None:
    """Write one slot's totals."""
    _SLOT.pack_into(
        buffer,
        _SLOTS_AT + number * _SLOT.size,
        _KINDS.index(key.kind),
        _MODES.index(key.mode),
        -1 if key.layer is None else key.layer,
        key.bucket,
        count,
        nanoseconds,
        longest,
    )


def unpack_slots(buffer: bytes, used: int) -> dict[SlotKey, Totals]:
    """Every slot in use.

    Raises:
        ValueError: a slot holds what no writer writes.
    """
    if used > CAPACITY:
        raise ValueError(f"it claims {used} slots of {CAPACITY}")
    found: dict[SlotKey, Totals] = {}
    for number in range(used):
        fields = _SLOT.unpack_from(buffer, _SLOTS_AT + number * _SLOT.size)
        if fields[0] >= len(_KINDS) or fields[1] >= len(_MODES):
            raise ValueError(f"slot {number} is of no known kind")
        key = SlotKey(
            kind=_KINDS[fields[0]],
            layer=None if fields[2] < 0 else fields[2],
            bucket=fields[3],
            mode=_MODES[fields[1]],
        )
        found[key] = Totals(count=fields[4], seconds=fields[5] / 1e9, max_seconds=fields[6] / 1e9)
    return found
