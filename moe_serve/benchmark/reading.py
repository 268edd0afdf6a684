"""Benchmark runs from result files: named files, or every `*.json` directly in a folder."""

from collections.abc import Sequence
from pathlib import Path

from moe_serve.benchmark.formats import runs_of
from moe_serve.benchmark.labels import ArmNames
from moe_serve.benchmark.results import BenchmarkRun
from moe_serve.config.strict_json import read
from moe_serve.errors import UsageError


def read_runs(places: Sequence[Path], names: ArmNames) -> tuple[BenchmarkRun, ...]:
    """The runs of all files, each folder's files in the order of their names.

    Raises:
        UsageError: a file is missing, is no complete result, or a folder has none.
    """
    return tuple(run for place in places for path in _files(place) for run in _read(path, names))


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    if found := sorted(place.glob("*.json")):
        return found
    raise UsageError(f"--from {place}: no *.json in this folder; give the benchmark's results")


def _read(path: Path, names: ArmNames) -> list[BenchmarkRun]:
    try:
        # NaN is allowed here: every figure that is used is checked by itself.
        document = read(path, "--from", finite=False)
    except FileNotFoundError as error:
        raise UsageError(
            f"--from {path}: {error.strerror}; give a result file or a folder of them"
        ) from error
    return runs_of(document, stem=path.stem, source=str(path), names=names)
