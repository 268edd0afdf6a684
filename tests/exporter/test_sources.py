"""The folder as it can be: empty, foreign, damaged, of dead workers."""

import os
import shutil
from pathlib import Path

import pytest

from moe_serve.exporter.collector import Collector
from moe_serve.exporter.sources import Sources
from moe_serve.metrics.samples import Samples
from moe_serve.telemetry import layout
from tests.exporter import workers

RANK = "dp0-pp0-tp0"


class Clock:
    """Seconds in a test's hands."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def names(samples: Samples) -> set[str]:
    """Metrics with a sample of a worker."""
    own = ("exporter_", "source_errors")
    return {name for name, series in samples.values.items() if series and not name.startswith(own)}


def test_a_dead_workers_last_totals_stay_for_the_ttl_and_then_only_its_death(
    tmp_path: Path,
) -> None:
    clock = Clock()
    exporter = Collector(Sources(tmp_path, ttl=60, clock=clock))
    writer = workers.worker(tmp_path)
    exporter.collect()
    writer.add(workers.KERNEL, 1_000_000, tokens=64)
    writer.close()
    clock.now = 1000.0
    last = exporter.collect()
    clock.now = 1059.0
    still = exporter.collect()
    clock.now = 1060.0
    gone = exporter.collect()

    series = (RANK, "0", "64", "full", "decode", "target")
    assert last.values["kernel_invocations_total"][series] == 11
    assert still.values["kernel_invocations_total"][series] == 11
    assert last.values["source_up"][RANK,] == gone.values["source_up"][RANK,] == 0
    assert last.values["padding_active"][RANK,] == 0
    assert names(gone) == {
        "source_up", "source_last_step_timestamp_seconds", "source_start_timestamp_seconds",
    }  # fmt: skip
    assert not gone.histograms


def test_a_new_worker_of_a_dead_ones_rank_is_fresh(tmp_path: Path) -> None:
    clock = Clock()
    exporter = Collector(Sources(tmp_path, ttl=60, clock=clock))
    workers.worker(tmp_path).close()
    exporter.collect()
    clock.now = 100.0
    writer = workers.worker(tmp_path)
    found = exporter.collect()
    writer.close()

    assert found.values["source_up"][RANK,] == 1
    assert found.values["steps_total"][RANK, "decode"] == 10


def test_one_bad_file_takes_nothing_from_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = workers.worker(tmp_path, tp=1)
    (tmp_path / "dp0-pp0-tp0.record").write_text("hello")
    (tmp_path / "dp0-pp0-tp2.record").symlink_to("/etc/passwd")
    exporter = Collector(Sources(tmp_path, ttl=60))
    exporter.collect()
    found = exporter.collect()
    writer.close()

    errors = found.values["source_errors_total"]
    assert errors["not_a_record",] == 2
    assert errors["unreadable",] == 2
    assert found.values["source_up"]["dp0-pp0-tp1",] == 1
    assert caplog.text.count("dp0-pp0-tp0.record") == 1  # said once, counted every time


def test_of_two_records_of_one_rank_the_newer_counts(tmp_path: Path) -> None:
    old = workers.worker(tmp_path)
    old.close()
    shutil.copy(tmp_path / f"{RANK}.record", tmp_path / "copy.record")
    new = workers.worker(tmp_path)
    new.add(workers.KERNEL, 1000)
    found = workers.collected(tmp_path)
    new.close()

    assert found.values["source_errors_total"]["duplicate_rank",] == 1
    series = (RANK, "0", "64", "full", "decode", "target")
    assert found.values["kernel_invocations_total"][series] == 11


def test_a_copy_does_not_stand_in_for_a_living_worker(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    shutil.copy(tmp_path / f"{RANK}.record", tmp_path / "backup.record")
    found = workers.collected(tmp_path)
    writer.close()

    assert found.values["source_up"] == {(RANK,): 1}
    assert found.values["source_errors_total"]["duplicate_rank",] == 1


def test_a_rank_whose_file_cannot_be_read_is_not_up(tmp_path: Path) -> None:
    (tmp_path / f"{RANK}.record").write_text("hello")
    (tmp_path / "other.record").write_text("hello")
    found = workers.collected(tmp_path)

    assert found.values["source_up"] == {(RANK,): 0}


def test_a_fault_that_comes_back_is_said_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = Sources(tmp_path, ttl=60)
    for there in (True, True, False, True):
        bad = tmp_path / "x.record"
        bad.write_text("hello") if there else bad.unlink()
        sources.read()

    assert caplog.text.count("x.record") == 2


def test_a_slot_torn_at_one_scrape_makes_no_counter_fall(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    exporter = Collector(Sources(tmp_path, ttl=60))
    before = exporter.collect()
    number = writer.slot(workers.KERNEL)
    assert number is not None
    at = layout.slot_offset(number)
    writer.buffer[at + 16 : at + layout.SLOT_BYTES] = b"\7" * (layout.SLOT_BYTES - 16)
    torn = exporter.collect()
    writer.close()

    assert torn.values["torn_slots"][RANK,] == 1
    for name in ("kernel_bytes_total", "kernel_tokens_total", "kernel_invocations_total"):
        assert torn.values[name] == before.values[name]
    assert torn.histograms == before.histograms


def test_a_slot_torn_when_first_seen_has_no_value(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    number = writer.slot(workers.KERNEL)
    assert number is not None
    at = layout.slot_offset(number)
    writer.buffer[at + 16 : at + layout.SLOT_BYTES] = b"\7" * (layout.SLOT_BYTES - 16)
    found = workers.collected(tmp_path)
    writer.close()

    assert {labels[1] for labels in found.values["kernel_invocations_total"]} == {"35"}


def test_no_folder_is_an_error_and_no_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = workers.collected(tmp_path / "later")

    assert found.values["source_errors_total"]["no_folder",] == 1
    assert names(found) == set()
    assert "there is no such folder yet" in caplog.text


@pytest.mark.parametrize("place", ["file/records", "n" * 300, "loop"])
def test_a_folder_that_cannot_be_listed_is_said_and_counted(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    found = workers.collected(tmp_path / place)

    assert found.values["source_errors_total"]["unreadable",] == 1
    assert names(found) == set()
    assert len(caplog.records) == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("below", ["", "records"])
def test_a_folder_that_may_not_be_read_is_said(
    below: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0)
    workers.collected(tmp_path / below)
    tmp_path.chmod(0o700)

    assert "Permission denied for user" in caplog.text
