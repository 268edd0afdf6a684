"""The scripts that bring the weights: the Job's download, and the pods that wait for it."""

import fnmatch
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.charts import scripts
from tests.charts.rendering import render

NAME, REVISION = "openai/gpt-oss-120b", "b5c939de"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "original/model.bin": b"again"}
LARGE = "model.safetensors"  # of its large files alone the hub tells the SHA-256
WANTED = {"config.json", LARGE}
# What `git hash-object` tells of the same contents.
BLOBS = {
    "config.json": "9e26dfeeb6e641a33dae4961196235bdb965b21b",
    LARGE: "0" * 40,  # of a pointer to it, which is what git holds
    "original/model.bin": "d3dc34affe77fdb18e4beef9d9b3213d791358e5",
}
SUMS = {name: hashlib.sha256(FILES[name]).hexdigest() for name in WANTED}


@dataclass
class Hub:
    """What the scripts use of huggingface_hub. `ends_after` files the download is interrupted.

    `answers` counts down: afterwards the hub is out of reach. A download then takes the folder for
    the answer if it has a file, as `snapshot_download` does. A mirror tells nothing of its files.
    """

    ends_after: int = len(FILES)
    answers: float = float("inf")
    mirror: bool = False
    fetched: list[str] = field(default_factory=list)

    def model_info(self, name: str, *, revision: str, files_metadata: bool) -> SimpleNamespace:
        assert (name, revision, files_metadata) == (NAME, REVISION, True)
        if not self._answers():
            raise ConnectionError("the hub does not answer")
        return SimpleNamespace(siblings=[self._told(file) for file in FILES])

    def _told(self, file: str) -> SimpleNamespace:
        if self.mirror:
            return SimpleNamespace(rfilename=file, lfs=None, blob_id=None)
        lfs = SimpleNamespace(sha256=SUMS[LARGE]) if file == LARGE else None
        return SimpleNamespace(rfilename=file, lfs=lfs, blob_id=BLOBS[file])

    def snapshot_download(
        self, name: str, *, revision: str, local_dir: Path, ignore_patterns: Sequence[str]
    ) -> None:
        assert (name, revision) == (NAME, REVISION)
        if not self._answers():
            assert any(local_dir.iterdir())
            return
        local_dir.mkdir(parents=True, exist_ok=True)
        for file, content in FILES.items():
            left_out = any(fnmatch.fnmatch(file, pattern) for pattern in ignore_patterns)
            if left_out or (local_dir / file).exists():
                continue
            if len(self.fetched) == self.ends_after:
                raise ConnectionError("the download was interrupted")
            (local_dir / file).write_bytes(content)
            self.fetched.append(file)

    def _answers(self) -> bool:
        self.answers -= 1
        return self.answers >= 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / NAME / REVISION


Fetch = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def fetch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fetch:
    """The Job's exit status and lines, with a hub and checksums."""
    job = render("moe-serve", set={"model.source": "job"}).only("Job")
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]

    def fetched(hub: Hub | None, sums: dict[str, str]) -> tuple[int, list[str]]:
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # None: not to be imported
        code = scripts.run(command, NAME, REVISION, str(folder), json.dumps(sums))
        captured = capsys.readouterr()
        return code, (captured.out + captured.err).splitlines()

    return fetched


def test_a_download_is_checked_and_marked_and_a_second_run_does_nothing(
    fetch: Fetch, folder: Path
) -> None:
    hub = Hub()
    assert fetch(hub, SUMS) == (0, [f"{folder}: complete, 2 files checked"])
    assert {*hub.fetched} == {each.name for each in folder.iterdir()} - {".complete"} == WANTED
    assert fetch(None, SUMS) == (0, [f"{folder}: complete already, 2 files checked"])


def test_without_checksums_it_says_that_nothing_was_verified(fetch: Fetch, folder: Path) -> None:
    nothing = "nothing verified, because model.job.checksums is empty"
    assert fetch(Hub(), {}) == (0, [f"{folder}: complete, {nothing}"])
    assert fetch(None, {}) == (0, [f"{folder}: complete already, {nothing}"])


@pytest.mark.parametrize(
    ("sums", "said"),
    [
        (
            {"config.json": "0" * 64},
            f"config.json: SHA-256 is {SUMS['config.json']}, not {'0' * 64}; "
            "it is the hub's own: mend model.job.checksums",
        ),
        (
            {LARGE: "0" * 64},
            f"{LARGE}: SHA-256 is {SUMS[LARGE]}, not {'0' * 64}; "
            "it is the hub's own: mend model.job.checksums",
        ),
        ({"model-00002.safetensors": "0" * 64}, "model-00002.safetensors: missing"),
    ],
)
def test_a_file_that_is_another_or_missing_is_named_and_no_mark_stays(
    sums: dict[str, str], said: str, fetch: Fetch, folder: Path
) -> None:
    fetch(Hub(), {})
    assert fetch(Hub(), {**SUMS, **sums}) == (1, [f"{folder}: {said}"])
    assert not (folder / ".complete").exists()


@pytest.mark.parametrize("name", ["config.json", LARGE])
def test_a_file_that_was_damaged_is_downloaded_again(name: str, fetch: Fetch, folder: Path) -> None:
    fetch(Hub(), {})
    (folder / name).write_bytes(b"weighs")
    code, lines = fetch(Hub(), SUMS)
    assert code == 1
    assert [line.rpartition("; ")[2] for line in lines] == [
        "removed, the next try downloads it again"
    ]
    hub = Hub()
    assert fetch(hub, SUMS) == (0, [f"{folder}: complete, 2 files checked"])
    assert hub.fetched == [name]


@pytest.mark.parametrize(
    ("hub", "name", "size"),
    [
        (Hub(mirror=True), "config.json", 2),
        (Hub(), "../elsewhere", 2),
        # No file that lies in git itself, whatever a mirror tells: and not to be read at once.
        (Hub(), "config.json", 16 << 20),
    ],
)
def test_a_file_of_which_the_hub_tells_nothing_stays(
    hub: Hub, name: str, size: int, fetch: Fetch, folder: Path
) -> None:
    fetch(Hub(), {})
    content = bytes(size)
    (folder / name).write_bytes(content)
    nothing = "the hub does not tell its own: mend model.job.checksums or the file"
    found = f"SHA-256 is {hashlib.sha256(content).hexdigest()}, not {'0' * 64}"
    assert fetch(hub, {name: "0" * 64}) == (1, [f"{folder}: {name}: {found}; {nothing}"])
    assert (folder / name).is_file()


def test_an_interrupted_download_goes_on_where_it_was(fetch: Fetch, folder: Path) -> None:
    interrupted = f"{NAME}, revision {REVISION}: ConnectionError: the download was interrupted"
    assert fetch(Hub(ends_after=1), SUMS) == (1, [interrupted])
    assert not (folder / ".complete").exists()
    hub = Hub()
    assert fetch(hub, SUMS) == (0, [f"{folder}: complete, 2 files checked"])
    assert hub.fetched == ["model.safetensors"]


def test_half_a_model_is_not_complete_because_the_hub_is_out_of_reach(
    fetch: Fetch, folder: Path
) -> None:
    for hub, said in (
        (Hub(ends_after=1), "the download was interrupted"),
        (Hub(answers=0), "the hub does not answer"),
    ):
        assert fetch(hub, {}) == (1, [f"{NAME}, revision {REVISION}: ConnectionError: {said}"])
    assert fetch(Hub(answers=1), {}) == (1, [f"{folder}: model.safetensors: missing"])
    assert not (folder / ".complete").exists()


def test_a_mark_that_was_cut_off_is_made_anew(fetch: Fetch, folder: Path) -> None:
    fetch(Hub(), SUMS)
    (folder / ".complete").write_text("", "utf-8")
    assert fetch(Hub(), SUMS) == (0, [f"{folder}: complete, 2 files checked"])


@dataclass
class Clock:
    """Time that passes only in `sleep`; the mark appears at `marked`."""

    folder: Path
    marked: float = float("inf")
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.marked:
            (self.folder / ".complete").touch()


def awaited(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> int:
    command = render("moe-serve", set={"model.source": "job"}).init("await-model")["command"]
    clock.folder.mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "time", clock)
    return scripts.run(command, str(clock.folder), "25")


def test_a_pod_waits_for_the_jobs_mark(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert awaited(Clock(folder, marked=20), monkeypatch) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [*[f"waiting for {folder}/.complete"] * 2, f"{folder}: complete"]


def test_a_pod_waits_no_longer_than_the_job_may_take(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(folder)
    assert awaited(clock, monkeypatch) == 1
    assert clock.now == 30
    said = capsys.readouterr().err
    assert said == f"{folder}/.complete: not there after 25 s; look at the model's Job\n"
