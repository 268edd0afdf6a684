"""The audit log: one JSON line a verdict with all that it rests on, each bound to the one before.

A verdict's line holds what was observed (the blocks' log ratios, what is void, how the arms
differ), the registration, the answers' comparison and the verdict; a rollout's transitions stand
between. Whoever has the file can check that no line was changed, or taken out before another, and
that every verdict follows from its own line. A chain cannot tell that its last lines are missing:
for that, a hash that was noted elsewhere must still be in it.
"""

import contextlib
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from moe_serve.analysis.comparison import Findings, conclude
from moe_serve.analysis.guards import GuardBlocks
from moe_serve.analysis.observations import Observations
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.provenance import Query
from moe_serve.analysis.series import Cell, CellKind, Floats
from moe_serve.analysis.table import BlockTable
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.windows import WindowCoverage
from moe_serve.errors import UsageError
from moe_serve.quality.finding import finding
from moe_serve.rollout.state import Entry

_START = "0" * 64
_PLAN = TypeAdapter(AnalysisPlan)
_VALIDITY = TypeAdapter(Validity)
_COVERAGE = TypeAdapter(WindowCoverage)
_GUARDS = TypeAdapter(tuple[GuardBlocks, ...])
_QUERIES = TypeAdapter(tuple[Query, ...])


class Audit:
    """An append-only file; two writers at once would break its chain, so there must be one."""

    def __init__(self, path: Path) -> None:
        """Continue a file, or start one.

        Raises:
            UsageError: it cannot be written, or its chain is broken already.
        """
        self.path = path
        self.fault = ""
        """Why the last write failed; empty if it did not."""
        self._last = _START
        self._transitions: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        if path.exists():
            for entry in entries(path):
                self._last = entry["hash"]
                if "transition" in entry:
                    try:
                        key = (str(entry["rollout"]), int(entry["transition"]["revision"]))
                    except (LookupError, TypeError, ValueError) as error:
                        raise UsageError(f"audit {path}: a transition of another form") from error
                    self._transitions.add(key)

    def append(self, found: Findings, at: float) -> None:
        """Write one verdict, flushed to the disk before this returns.

        Raises:
            UsageError: the file cannot be written.
        """
        self._write({"at": at, **inputs(found), "verdict": found.to_json()})

    def transition(self, rollout: str, entry: Entry) -> None:
        """Write one line of a rollout's history, unless it is there already.

        Raises:
            UsageError: the file cannot be written.
        """
        key = (rollout, entry.revision)
        if key in self._transitions:
            return
        self._write({"at": entry.at, "rollout": rollout, "transition": asdict(entry)})
        self._transitions.add(key)

    def _write(self, body: dict[str, Any]) -> None:
        with self._lock:
            self._chain({"previous": self._last, **body})

    def _chain(self, entry: dict[str, Any]) -> None:
        text = _text(entry)
        digest = hashlib.sha256(text.encode()).hexdigest()
        before = None
        try:
            with self.path.open("a", encoding="utf-8") as out:
                before = out.tell()
                out.write(_text({**entry, "hash": digest}) + "\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            self.fault = f"audit {self.path}: {error.strerror}"
            if before is not None:
                # Half a line would break the chain for good.
                with contextlib.suppress(OSError):
                    os.truncate(self.path, before)
            raise UsageError(self.fault) from error
        self._last, self.fault = digest, ""


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Every entry, its hash and its link to the one before checked.

    Lines that are missing at the end leave no trace in those before them.

    Raises:
        UsageError: a line was changed, cut short, or taken out before another; it names the first.
    """
    last = _START
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield (entry := _entry(path, number, line, last))
                last = entry["hash"]
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"audit {path}: {text}") from error


def _entry(path: Path, number: int, line: str, last: str) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
        claimed = entry["hash"]
        text = _text({key: value for key, value in entry.items() if key != "hash"})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"audit {path}, line {number}: no whole entry") from error
    if hashlib.sha256(text.encode()).hexdigest() != claimed:
        raise UsageError(f"audit {path}, line {number}: changed after it was written")
    if entry.get("previous") != last:
        raise UsageError(f"audit {path}, line {number}: a line before it is missing or was moved")
    return entry


def reproduce(entry: dict[str, Any]) -> Findings:
    """The findings that follow from an entry's inputs.

    Raises:
        UsageError: the entry has not all inputs of a verdict, or others than this version writes.
    """
    try:
        observations = _observations(entry["observations"])
        analysis_plan = _analysis_plan(entry["analysis_plan"])
        found = conclude(observations, analysis_plan, finding(entry["quality"]))
        again = inputs(found)
        claimed = {key: entry[key] for key in again}
        # By value: a number may have been written as 600 or as 600.0.
        if json.loads(_text(again)) != json.loads(_text(claimed)):
            raise ValueError("it has other parts")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise UsageError(
            f"not an entry that this version writes ({type(error).__name__}: {text})"
        ) from error
    return found


def inputs(found: Findings) -> dict[str, Any]:
    """All that a verdict rests on, as JSON values."""
    seen = found.observations
    return {
        "observations": {
            "tables": {kind.value: _table_out(table) for kind, table in seen.tables.items()},
            "mixed": _table_out(seen.mixed),
            "moe_share": seen.moe_share,
            "facts": {name: dict(facts) for name, facts in seen.facts.items()},
            "guards": [asdict(guard) for guard in seen.guards],
            "stable": asdict(seen.stable),
            "canary": asdict(seen.canary),
            "stable_pods": seen.stable_pods,
            "canary_pods": seen.canary_pods,
            "canary_neurons": seen.canary_neurons,
            "byte_bound": seen.byte_bound,
            "validity": asdict(seen.validity),
            "start": seen.start,
            "end": seen.end,
            "origin": seen.origin,
            "queries": [asdict(query) for query in seen.queries],
        },
        "analysis_plan": found.analysis_plan.to_json(),
        "quality": found.quality.to_json(),
    }


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _table_out(table: BlockTable) -> dict[str, Any]:
    return {
        "cells": [_cell_out(cell) for cell in table.cells],
        "starts": table.starts.tolist(),
        "log_ratios": [
            [None if math.isnan(value) else value for value in row]
            for row in table.log_ratios.tolist()
        ],
        "busy": table.busy.tolist(),
    }


def _table_in(body: dict[str, Any]) -> BlockTable:
    cells = tuple(_cell_in(cell) for cell in body["cells"])
    ratios: Floats = np.array(body["log_ratios"], dtype=np.float64)
    return BlockTable(
        cells=cells,
        starts=np.array(body["starts"], dtype=np.float64),
        log_ratios=ratios.reshape(len(body["starts"]), len(cells)),
        busy=np.array(body["busy"], dtype=np.float64),
    )


def _observations(body: dict[str, Any]) -> Observations:
    return Observations(
        **{
            **body,
            "tables": {CellKind(kind): _table_in(table) for kind, table in body["tables"].items()},
            "mixed": _table_in(body["mixed"]),
            "guards": _GUARDS.validate_python(body["guards"]),
            "stable": _COVERAGE.validate_python(body["stable"]),
            "canary": _COVERAGE.validate_python(body["canary"]),
            "canary_neurons": body["canary_neurons"] and tuple(body["canary_neurons"]),
            "validity": _VALIDITY.validate_python(body["validity"]),
            "queries": _QUERIES.validate_python(body["queries"]),
        }
    )


def _analysis_plan(body: dict[str, Any]) -> AnalysisPlan:
    weights = body["weights"]
    if weights is not None:
        weights = {_cell_in(cell): share for *cell, share in weights}
    return replace(_PLAN.validate_python({**body, "weights": None}), weights=weights)


def _cell_out(cell: Cell) -> list[Any]:
    return list(astuple(cell))


def _cell_in(body: list[Any]) -> Cell:
    kind, layer, bucket, phase, mode = body
    return Cell(kind=CellKind(kind), layer=layer, bucket=bucket, phase=phase, mode=mode)
