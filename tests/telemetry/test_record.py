"""The record: what a reader sees of a writer, and of what is no record."""

import multiprocessing
import os
import struct
import time
from pathlib import Path

import pytest

from moe_serve.errors import RecordError
from moe_serve.telemetry import layout
from moe_serve.telemetry.record import (
    Kind,
    Mode,
    Rank,
    RecordWriter,
    SlotKey,
    Totals,
    read_record,
    read_records,
)

STEP = SlotKey(kind=Kind.STEP, layer=None, bucket=8, mode=Mode.DECODE)
KERNEL = SlotKey(kind=Kind.KERNEL, layer=3, bucket=8, mode=Mode.MIXED)


def test_a_reader_sees_totals_and_proof(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank(dp=1, pp=2, tp=3), clock=lambda: 12.5)
    writer.prove({"policy": "aligned"})
    writer.add(STEP, 2_000_000)
    writer.add(STEP, 3_000_000)
    writer.add(KERNEL, 1_000)

    (record,) = read_records(tmp_path)

    assert record.path.name == "dp1-pp2-tp3.record"
    assert (record.rank, record.heartbeat_seconds) == (Rank(dp=1, pp=2, tp=3), 12.5)
    assert (record.alive, record.telemetry_failed, record.slots_dropped) == (True, False, 0)
    assert record.proof == {"policy": "aligned"}
    assert record.totals == {
        STEP: Totals(count=2, seconds=0.005, max_seconds=0.003),
        KERNEL: Totals(count=1, seconds=1e-6, max_seconds=1e-6),
    }
    writer.close()


def test_a_writer_that_ended_is_not_alive_and_its_totals_stay(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    writer.add(STEP, 5)
    writer.close()

    (record,) = read_records(tmp_path)

    assert (record.alive, record.totals[STEP].count) == (False, 1)


def test_a_new_writer_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    old = RecordWriter(tmp_path, Rank())
    first = read_records(tmp_path)[0].generation
    new = RecordWriter(tmp_path, Rank())

    (record,) = read_records(tmp_path)

    assert record.alive
    assert record.generation > first
    assert [path.name for path in tmp_path.iterdir()] == ["dp0-pp0-tp0.record"]
    old.close()
    new.close()


def test_what_does_not_fit_is_counted_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_serve.telemetry.record.CAPACITY", 1)
    writer = RecordWriter(tmp_path, Rank())
    writer.add(STEP, 1)
    writer.add(KERNEL, 1)
    writer.add(KERNEL, 1)

    (record,) = read_records(tmp_path)

    assert (set(record.totals), record.slots_dropped) == ({STEP}, 2)
    writer.close()


def test_a_failure_of_the_writer_shows(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    writer.fail()

    assert read_records(tmp_path)[0].telemetry_failed
    writer.close()


def test_no_folder_is_no_record(tmp_path: Path) -> None:
    assert read_records(tmp_path / "missing") == ()


def whole(tmp_path: Path) -> bytearray:
    RecordWriter(tmp_path, Rank()).close()
    return bytearray((tmp_path / "dp0-pp0-tp0.record").read_bytes())


def _version(data: bytearray) -> bytearray:
    data[8:12] = struct.pack("<I", 99)
    return data


def _odd(data: bytearray) -> bytearray:
    data[layout.SEQUENCE_AT : layout.SEQUENCE_AT + 8] = layout.SEQUENCE.pack(7)
    return data


def _long_proof(data: bytearray) -> bytearray:
    data[128:132] = struct.pack("<I", 2**31)
    return data


def _broken_proof(data: bytearray) -> bytearray:
    data[128:134] = struct.pack("<I", 2) + b"[}"
    return data


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda data: bytearray(b""), "no moe-serve record"),
        (lambda data: bytearray(b"#!/bin/sh\n" * 50), "no moe-serve record"),
        (lambda data: data[:5000], "cut short"),
        (lambda data: data + b"more", "cut short"),
        (_version, "version 99"),
        (_odd, "never came to rest"),
        (_long_proof, "longer than its place"),
        (_broken_proof, "Expecting"),
    ],
)
def test_what_is_no_record_is_one_line_that_names_the_file(
    spoil: "object", named: str, tmp_path: Path
) -> None:
    path = tmp_path / "dp0-pp0-tp0.record"
    path.write_bytes(spoil(whole(tmp_path)))  # type: ignore[operator]

    with pytest.raises(RecordError, match=named) as caught:
        read_record(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "link.record").symlink_to(tmp_path / "dp0-pp0-tp0.record")

    with pytest.raises(RecordError, match=r"link\.record"):
        read_record(tmp_path / "link.record")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RecordError, match="no record can be made"):
        RecordWriter(tmp_path / "file", Rank())


def _write(folder: Path, ready: "object", stop: "object") -> None:
    writer = RecordWriter(folder, Rank())
    ready.set()  # type: ignore[attr-defined]
    while not stop.is_set():  # type: ignore[attr-defined]
        for key in (STEP, KERNEL):
            writer.add(key, 1000)
        time.sleep(0.0005)  # a worker computes between its updates
    os._exit(0)


def test_a_reader_never_sees_half_an_update(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_write, args=(tmp_path, ready, stop))
    process.start()
    try:
        assert ready.wait(60)
        for _ in range(200):
            (record,) = read_records(tmp_path)
            for total in record.totals.values():
                assert total.seconds == pytest.approx(total.count * 1e-6)
    finally:
        stop.set()
        process.join()
