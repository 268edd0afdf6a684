"""The record: what a reader sees of a writer, of a dead one, and of what is no record."""

import itertools
import multiprocessing
import os
import signal
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_serve.errors import RecordError
from moe_serve.telemetry import layout
from moe_serve.telemetry.record import (
    BatchPhase,
    GraphMode,
    ModelRole,
    Rank,
    RecordReader,
    RecordWriter,
    SlotKey,
    SlotKind,
    Totals,
    read_record,
    read_records,
)
from moe_serve.telemetry.slots import HISTOGRAM_SECONDS, OVERFLOW, eager_bucket
from tests.testing import proofs

PROOF = proofs.proof()

STEP = SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=8)
KERNEL = SlotKey(
    kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.ANY, bucket=1024, layer=35, ubatch=1
)


def bins(**counts: int) -> tuple[int, ...]:
    found = [0] * layout.BINS
    for name, count in counts.items():
        found[int(name[1:])] = count
    return tuple(found)


def totals_of(seconds: float, *, count: int = 1, **rest: Any) -> Totals:
    return Totals(count=count, seconds=seconds, invalid=0, **rest)


def test_a_reader_sees_totals_and_proof(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank(dp=1, pp=2, tp=3), clock=lambda: 12_500_000_000)
    writer.prove(PROOF)
    writer.add(STEP, 2_000_000, tokens=8)
    writer.add(STEP, 3_000_000, tokens=8)
    writer.add(KERNEL, 1_000, tokens=1024)
    writer.add(KERNEL, -5, tokens=1024)
    writer.stepped(BatchPhase.DECODE, 7)

    (record,) = read_records(tmp_path)

    assert record.path.name == "dp1-pp2-tp3.record"
    assert (record.rank, record.generation) == (Rank(dp=1, pp=2, tp=3), 12_500_000_000)
    assert (record.started_seconds, record.last_step_seconds) == (12.5, 12.5)
    assert (record.alive, record.telemetry_failed) == (True, False)
    assert (record.slots_dropped, record.slots_torn, record.recaptures) == (0, 0, 0)
    assert (record.proof, record.proof_fault) == (PROOF, None)
    schedule = SlotKey(
        kind=SlotKind.SCHEDULE, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=0
    )
    assert record.totals == {
        STEP: Totals(
            count=2, seconds=0.005, max_seconds=0.003, tokens=16, invalid=0,
            histogram=bins(b12=1, b13=1),
        ),
        KERNEL: Totals(
            count=1, seconds=1e-6, max_seconds=1e-6, tokens=1024, invalid=1, histogram=bins(b0=1)
        ),
        schedule: Totals(
            count=1, seconds=0, max_seconds=0, tokens=7, invalid=0, histogram=bins()
        ),
    }  # fmt: skip
    writer.close()


def test_times_are_in_the_clocks_own_ticks(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank(), clock_hertz=100_000_000)
    writer.add(STEP, 200_000)

    (total,) = read_records(tmp_path)[0].totals.values()

    assert (total.seconds, total.histogram) == (0.002, bins(b12=1))
    writer.close()


@given(
    kind=st.sampled_from(SlotKind), mode=st.sampled_from(GraphMode),
    phase=st.sampled_from(BatchPhase),
    model=st.sampled_from(ModelRole), bucket=st.integers(0, 2**24 - 1), ubatch=st.integers(0, 255),
    layer=st.none() | st.integers(0, 2**16 - 2),
)  # fmt: skip
def test_a_key_is_one_positive_word(**fields: Any) -> None:
    key = SlotKey(**fields)
    word = layout.pack_key(key)
    assert 0 <= word < 2**63  # a device's integers are signed
    assert layout.unpack_key(word) == key


@given(st.integers(1, 100_000))
def test_an_eager_bucket_holds_its_rows(rows: int) -> None:
    bucket = eager_bucket(rows)
    assert bucket == OVERFLOW if rows > 8192 else rows <= bucket < 2 * max(rows, 33)


def test_histogram_bounds_rise_from_a_kernel_to_a_step() -> None:
    assert tuple(sorted(HISTOGRAM_SECONDS)) == HISTOGRAM_SECONDS
    assert (HISTOGRAM_SECONDS[0], HISTOGRAM_SECONDS[-1]) == (8e-6, pytest.approx(0.2080, rel=1e-3))


def test_a_writer_that_ended_is_not_alive_and_its_totals_stay(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    writer.add(STEP, 5)
    writer.close()

    (record,) = read_records(tmp_path)

    assert (record.alive, record.totals[STEP].count) == (False, 1)


def test_a_new_writer_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    old = RecordWriter(tmp_path, Rank())
    first = read_records(tmp_path)[0].generation
    old.close()
    new = RecordWriter(tmp_path, Rank())

    (record,) = read_records(tmp_path)

    assert record.alive
    assert record.generation > first
    assert [path.name for path in tmp_path.iterdir()] == ["dp0-pp0-tp0.record"]
    new.close()


def test_two_living_workers_of_one_rank_do_not_share_a_record(tmp_path: Path) -> None:
    first = RecordWriter(tmp_path, Rank())
    first.add(STEP, 1)
    with pytest.raises(RecordError, match="another living worker writes it"):
        RecordWriter(tmp_path, Rank())

    assert read_records(tmp_path)[0].totals[STEP].count == 1
    first.close()


def test_a_reader_that_comes_again_sees_what_changed(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    reader = RecordReader(tmp_path / Rank().file_name)
    writer.add(STEP, 5)
    writer.stepped(BatchPhase.DECODE, 1)
    before = reader.read()
    writer.add(STEP, 7)
    after = reader.read()
    writer.close()
    other = RecordWriter(tmp_path, Rank())
    fresh = reader.read()

    changed = {key for key in after.totals if after.totals[key] is not before.totals[key]}
    assert changed == {STEP}
    assert after.totals[STEP].count == 2
    assert fresh.totals == {}
    other.close()


def test_a_record_is_readable_by_the_pods_group_alone(tmp_path: Path) -> None:
    os.umask(0)
    RecordWriter(tmp_path / "records", Rank()).close()
    assert (tmp_path / "records/dp0-pp0-tp0.record").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o750


def test_a_new_capture_is_a_new_generation(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank(), clock=lambda: 7)
    writer.add(STEP, 1)
    writer.recaptured()

    (record,) = read_records(tmp_path)

    assert (record.generation, record.recaptures, record.totals[STEP].count) == (8, 1, 1)
    writer.close()


def test_what_does_not_fit_is_counted_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_serve.telemetry.record.CAPACITY", 3)
    writer = RecordWriter(tmp_path, Rank())
    writer.add(STEP, 1)
    writer.add(KERNEL, 1)
    writer.add(KERNEL, 1)

    (record,) = read_records(tmp_path)

    assert (set(record.totals), record.slots_dropped) == ({STEP}, 1)
    writer.close()


def test_a_failure_of_the_writer_shows(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    writer.fail()

    assert read_records(tmp_path)[0].telemetry_failed
    writer.close()


def test_no_folder_is_no_record(tmp_path: Path) -> None:
    assert read_records(tmp_path / "missing") == ()


def whole(tmp_path: Path) -> bytearray:
    writer = RecordWriter(tmp_path, Rank())
    writer.add(STEP, 1000)
    writer.prove(PROOF)
    writer.close()
    return bytearray((tmp_path / "dp0-pp0-tp0.record").read_bytes())


def _version(data: bytearray) -> bytearray:
    data[8:12] = struct.pack("<I", 99)
    return data


def _byte_order(data: bytearray) -> bytearray:
    data[12:16] = data[12:16][::-1]
    return data


def _header(data: bytearray) -> bytearray:
    data[64:576] = os.urandom(512)
    return data


def _proof(data: bytearray) -> bytearray:
    data[4096 : 4096 + 65536] = os.urandom(65536)
    return data


@pytest.mark.parametrize(
    ("spoil", "reason", "named"),
    [
        (lambda data: bytearray(b""), "not_a_record", "no moe-serve record"),
        (lambda data: bytearray(b"#!/bin/sh\n" * 50), "not_a_record", "no moe-serve record"),
        (lambda data: data[:9], "truncated", "it has 9 bytes"),
        (lambda data: data[:5000], "truncated", "it has 5000 bytes"),
        (lambda data: data + b"more", "truncated", "a record has"),
        (_version, "version", "version 99"),
        (_byte_order, "endianness", "byte order"),
        (_header, "not_a_record", "header is damaged"),
        (_proof, "proof", "proof is damaged"),
    ],
)
def test_what_is_no_record_is_one_line_that_names_the_file(
    spoil: Any, reason: str, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "dp0-pp0-tp0.record"
    path.write_bytes(spoil(whole(tmp_path)))

    with pytest.raises(RecordError, match=named) as caught:
        read_record(path)

    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "link.record").symlink_to(tmp_path / "dp0-pp0-tp0.record")

    with pytest.raises(RecordError, match=r"link\.record"):
        read_record(tmp_path / "link.record")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_one_line(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "odd.record")

    with pytest.raises(RecordError, match=r"odd\.record"):
        read_record(tmp_path / "odd.record")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RecordError, match="no record can be made"):
        RecordWriter(tmp_path / "file", Rank())


TRUE = totals_of(1e-6, max_seconds=1e-6, tokens=0, histogram=bins(b0=1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_an_error_or_nothing_or_the_truth(
    data: st.DataObject, tmp_path: Path
) -> None:
    content = whole(tmp_path)
    parts = [(0, 64), (64, 576), (4096, 4200), (layout.SLOTS_AT, layout.SLOTS_AT + 512)]
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = data.draw(st.sampled_from(parts))
        at = data.draw(st.integers(start, end - 1))
        noise = data.draw(st.binary(min_size=1, max_size=40))
        content[at : at + len(noise)] = noise
    content = content[: data.draw(st.none() | st.integers(0, len(content)))]
    path = tmp_path / "dp0-pp0-tp0.record"
    path.write_bytes(content)

    try:
        record = read_record(path)
    except RecordError:
        return
    assert record.totals in ({}, {STEP: TRUE})
    assert record.proof in (None, PROOF)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=70_000))
def test_random_bytes_are_an_error(noise: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dp0-pp0-tp0.record"
    path.write_bytes(noise)
    with pytest.raises(RecordError):
        read_record(path)


def test_a_file_cut_at_any_word_is_an_error(tmp_path: Path) -> None:
    content = bytes(whole(tmp_path))
    path = tmp_path / "dp0-pp0-tp0.record"
    path.write_bytes(content)
    for length in (*range(layout.SLOTS_AT + 4096, -1, -8), layout.SIZE - 1):
        os.truncate(path, 0)
        path.write_bytes(content[:length])
        with pytest.raises(RecordError):
            read_record(path)


# How many of a cell's 32 words change in one update: updates, count, ticks, longest, tokens, one of
# the histogram, the seal; and the key, in a cell's first one.
CHANGING = (
    layout.UPDATES, layout.KEY, layout.COUNT, layout.TICKS, layout.LONGEST, layout.TOKENS,
    layout.HISTOGRAM + 9, layout.SEAL,
)  # fmt: skip


def _history(count: int) -> list[bytes]:
    """The bytes of a pair of cells after each of `count` updates."""
    buffer, states = bytearray(layout.SLOT_BYTES), [bytes(layout.SLOT_BYTES)]
    words = [0, layout.pack_key(STEP), *[0] * (layout.SEAL - 2)]
    for update in range(1, count + 1):
        words[layout.UPDATES] = words[layout.COUNT] = words[layout.HISTOGRAM + 9] = update
        words[layout.TICKS] += 61_000 + update
        words[layout.LONGEST] = 61_000 + update
        words[layout.TOKENS] += 8
        layout.pack_cells(buffer, 0, words)
        states.append(bytes(buffer))
    return states


def _read(pair: bytes) -> layout.SlotLayout | None:
    return layout.unpack_slot(pair, 0, 10**9)


def _mixed(old: bytes, new: bytes, words: tuple[int, ...], cell: int) -> bytes:
    """`old` with some words of one cell already as in `new`: stores come in any order."""
    pair = bytearray(old)
    for word in words:
        at = cell * layout.CELL_BYTES + word * 8
        pair[at : at + 8] = new[at : at + 8]
    return bytes(pair)


def test_whatever_order_stores_become_visible_in_a_reader_sees_the_state_before_or_after() -> None:
    """Every subset of an update's stores: the exhaustive form of every interleaving of one read."""
    states = _history(5)
    for update in range(1, len(states)):
        before, after = states[update - 1], states[update]
        truth = {None if update == 1 else _read(before), _read(after)}
        for size in range(len(CHANGING) + 1):
            for words in itertools.combinations(CHANGING, size):
                pair = _mixed(before, after, words, update & 1)
                try:
                    seen = _read(pair)
                except ValueError:
                    assert update == 1  # no state before it to fall back on
                    continue
                assert seen in truth


def test_a_reader_that_is_lapped_sees_a_state_that_was_or_none() -> None:
    """QueryBuilder of one cell out of three generations of it, the other cell torn as well."""
    states = _history(9)
    truth = [_read(state) for state in states]
    choices = range(3)
    for picks in itertools.product(choices, repeat=len(CHANGING)):
        pair = bytearray(states[4])
        for cell, base in ((0, 4), (1, 3)):
            for word, pick in zip(CHANGING, picks, strict=True):
                at = cell * layout.CELL_BYTES + word * 8
                pair[at : at + 8] = states[base + 2 * pick][at : at + 8]
        try:
            seen = _read(bytes(pair))
        except ValueError:
            continue
        assert seen in truth


def _write(folder: Path, ready: Any, stop: Any) -> None:
    writer = RecordWriter(folder, Rank())
    ready.set()
    while not stop.is_set():
        for key in (STEP, KERNEL):
            writer.add(key, 1000, tokens=3)
    os._exit(0)


def test_a_reader_never_sees_half_an_update_of_a_writer_that_never_rests(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_write, args=(tmp_path, ready, stop))
    process.start()
    try:
        assert ready.wait(60)
        for _ in range(500):
            (record,) = read_records(tmp_path)
            for total in record.totals.values():
                count = total.count
                assert total == totals_of(
                    pytest.approx(count * 1e-6), count=count, max_seconds=1e-6,  # type: ignore[arg-type]
                    tokens=3 * count, histogram=bins(b0=count),
                )  # fmt: skip
    finally:
        stop.set()
        process.join()


def test_a_killed_writer_leaves_a_readable_record_of_a_dead_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_write, args=(tmp_path, ready, stop))
    process.start()
    assert ready.wait(60)
    while not read_records(tmp_path)[0].totals:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    (record,) = read_records(tmp_path)

    assert (record.alive, record.slots_torn) == (False, 0)
    assert record.totals[STEP].count > 0


def test_a_key_that_finds_no_slot_counts_once_and_steps_are_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_serve.telemetry.record.CAPACITY", 2)
    writer = RecordWriter(tmp_path, Rank())
    for _ in range(50):
        writer.add(STEP, 1000)
    writer.stepped(BatchPhase.MIXED, 7)
    writer.stepped(BatchPhase.DECODE, 5)
    record = read_record(tmp_path / "dp0-pp0-tp0.record")
    assert record.slots_dropped == 1
    assert {(key.kind, key.phase): totals.tokens for key, totals in record.totals.items()} == {
        (SlotKind.SCHEDULE, BatchPhase.MIXED): 7,
        (SlotKind.SCHEDULE, BatchPhase.DECODE): 5,
    }
    writer.close()


def test_a_file_that_cannot_take_its_place_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "dp0-pp0-tp0.record").mkdir()
    with pytest.raises(RecordError, match="no record can be made"):
        RecordWriter(tmp_path, Rank())
    assert [path.name for path in tmp_path.iterdir()] == ["dp0-pp0-tp0.record"]
