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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from moe_serve.analysis.comparison import AnalysisPlan, Findings, Observations, conclude
from moe_serve.analysis.guards import Guard, GuardBlocks, GuardKind
from moe_serve.analysis.noise import Calibration, Design, PodVariation
from moe_serve.analysis.policy import OnNoGain, Policy, Uncovered
from moe_serve.analysis.provenance import Query, Subject
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import BlockTable, Floats
from moe_serve.analysis.validity import EvidenceGrade, RequestCounts, Validity
from moe_serve.analysis.windows import BlockingScheme, Windows
from moe_serve.errors import UsageError
from moe_serve.quality.finding import QualityMode, finding
from moe_serve.rollout.state import Entry

_START = "0" * 64


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
        UsageError: it does not hold what a verdict rests on.
    """
    try:
        return conclude(
            _observations(entry["observed"]),
            _analysis_plan(entry["registered"]),
            finding(entry["quality"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"not an entry that this version writes ({type(error).__name__}: {error})"
        ) from error


def inputs(found: Findings) -> dict[str, Any]:
    """All that a verdict rests on, in JSON's own types."""
    seen, analysis_plan = found.observed, found.analysis_plan
    return {
        "observed": {
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
        "registered": {
            **_plain(asdict(replace(analysis_plan, weights=None))),
            "weights": _weights_out(analysis_plan.weights),
        },
        "quality": found.quality.to_json(),
    }


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    """JSON has no infinity; it stands for figures that were declared."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return "inf" if isinstance(value, float) and math.isinf(value) else value


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
    validity = dict(body["validity"])
    requests = validity.pop("requests")
    for name in ("void_reasons", "config_differences", "config_unknown", "declared", "dead_arms"):
        validity[name] = tuple(validity[name])
    neurons = body["canary_neurons"]
    validity["evidence"] = EvidenceGrade(validity["evidence"])
    return Observations(
        tables={CellKind(kind): _table_in(table) for kind, table in body["tables"].items()},
        mixed=_table_in(body["mixed"]),
        moe_share=body["moe_share"],
        facts=body["facts"],
        guards=tuple(
            GuardBlocks(
                guard=_guard(guard["guard"]),
                stable=tuple((value, count) for value, count in guard["stable"]),
                canary=tuple((value, count) for value, count in guard["canary"]),
            )
            for guard in body["guards"]
        ),
        stable=Windows(**body["stable"]),
        canary=Windows(**body["canary"]),
        stable_pods=body["stable_pods"],
        canary_pods=body["canary_pods"],
        canary_neurons=None if neurons is None else (neurons[0], neurons[1]),
        byte_bound=body.get("byte_bound"),
        validity=Validity(requests=RequestCounts(**requests) if requests else None, **validity),
        start=body["start"],
        end=body["end"],
        origin=body["origin"],
        # Audits from before there were any have none.
        queries=tuple(
            Query(**{**query, "subject": Subject(query["subject"])})
            for query in body.get("queries", ())
        ),
    )


def _analysis_plan(body: dict[str, Any]) -> AnalysisPlan:
    rules = dict(body)
    policy = dict(rules.pop("policy"))
    known = rules.pop("calibration")
    return AnalysisPlan(
        policy=Policy(
            **{
                **policy,
                # An audit from before the policy said it was judged so.
                "uncovered": Uncovered(policy.get("uncovered", "as_covered")),
                "primary": CellKind(policy["primary"]),
                "on_no_gain": OnNoGain(policy["on_no_gain"]),
                "quality_mode": QualityMode(policy["quality_mode"]),
            }
        ),
        blocking=BlockingScheme(**rules["blocking"]),
        deadline_seconds=rules["deadline_seconds"],
        design=Design(rules["design"]),
        pod_variation=PodVariation(
            **{name: float(value) for name, value in rules["pod_variation"].items()}
        ),
        calibration=Calibration(**known) if known else None,
        under_test=tuple(rules["under_test"]),
        canary_share=rules["canary_share"],
        guards=tuple(_guard(guard) for guard in rules["guards"]),
        weights=_weights_in(rules["weights"]),
        batches=None if rules.get("batches") is None else tuple(rules["batches"]),
    )


def _guard(body: dict[str, Any]) -> Guard:
    return Guard(**{**body, "kind": GuardKind(body["kind"])})


def _weights_out(weights: Mapping[Cell, float] | None) -> list[list[Any]] | None:
    return None if weights is None else [[*_cell_out(c), share] for c, share in weights.items()]


def _weights_in(body: list[list[Any]] | None) -> dict[Cell, float] | None:
    return None if body is None else {_cell_in(cell): share for *cell, share in body}


def _cell_out(cell: Cell) -> list[Any]:
    return [cell.kind.value, cell.layer, cell.bucket, cell.phase, cell.mode]


def _cell_in(body: list[Any]) -> Cell:
    kind, layer, bucket, phase, mode = body
    return Cell(kind=CellKind(kind), layer=layer, bucket=bucket, phase=phase, mode=mode)
