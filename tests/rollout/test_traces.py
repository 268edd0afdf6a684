"""Whole rollouts as tables: what is seen at which minute, and where the rollout stands then."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.observation import RouteAbsent, RouteForeign, RouteSeen
from moe_serve.rollout.replicas import replica_diff
from moe_serve.rollout.weights import Track, Weights
from tests.rollout.world import World, plan_of

TRACES = sorted(Path(__file__).with_name("traces").glob("*.yaml"))
_SEEN = {
    "ready", "unexpected_pods", "full", "missing", "word", "quality", "since", "route",
    "route_stuck",
    "approve", "abort", "load_pods", "faults", "refused", "jump_minutes",
}  # fmt: skip
_EXPECTED = {"phase", "weights", "waits", "last", "diff", "writes", "step"}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_rollout_goes_as_its_table_says(path: Path) -> None:
    trace = yaml.safe_load(path.read_text("utf-8"))
    world = World(plan=plan_of(**trace.get("plan", {})))
    for number, row in enumerate(trace["rows"]):
        assert row.keys() <= _SEEN | _EXPECTED | {"at"}, f"row {number} has an unknown column"
        world.now = row["at"] * 60.0
        _change(world, row)
        written = len(world.given)
        world.settle()
        found = _found(world, written)
        wanted = {key: row[key] for key in row.keys() & _EXPECTED}
        assert {key: found[key] for key in wanted} == wanted or _texts(found, wanted), (
            f"{path.stem}, row {number} (minute {row['at']}):\n{found}\n{wanted}"
        )


def _texts(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Sentences are held against a part of theirs, everything else against the whole."""
    sentences = {"waits", "last"}
    return all(
        value in found[key] if key in sentences else found[key] == value
        for key, value in wanted.items()
    )


def _found(world: World, written: int) -> dict[str, Any]:
    state = world.state
    return {
        "phase": str(state.phase),
        "step": state.step,
        "weights": str(world.weights),
        "waits": state.waiting_for,
        "last": next(e.detail for e in reversed(state.history) if e.kind == "phase"),
        "diff": list(replica_diff(world.plan, state)),
        "writes": len(world.given) - written,
    }


def _change(world: World, row: dict[str, Any]) -> None:
    for kind in ("ready", "unexpected_pods", "full"):
        getattr(world, kind).update(
            {Track(track): count for track, count in row.get(kind, {}).items()}
        )
    read = {
        "missing": lambda tracks: {Track(track) for track in tracks},
        "word": lambda name: Verdict[name] if name else None,
        "quality": lambda name: QualityOutcome(name) if name else None,
        "route": lambda change: _route(world, change),
    }
    plain = ("since", "route_stuck", "load_pods")
    for name in row.keys() & {*read, *plain}:
        field = "verdict" if name == "word" else name
        setattr(world, field, read[name](row[name]) if name in read else row[name])
    world.faults = tuple(row.get("faults", ()))
    world.refused = row.get("refused", "")
    world.jump = row.get("jump_minutes", 0) * 60.0
    if row.get("approve"):
        # Nothing that could be approved: an approval of what does not exist.
        world.approve = world.state.hold.revision if world.state.hold else -1
    if row.get("abort"):
        world.abort = world.state.rollout


def _route(world: World, change: Any) -> RouteSeen | RouteAbsent | RouteForeign:
    if change == "absent":
        return RouteAbsent()
    if isinstance(change, str):
        return RouteForeign(detail=change)
    stamp = world.route.stamp if isinstance(world.route, RouteSeen) else None
    texts = {key: change[key] for key in change.keys() & {"altered", "refused"}}
    parts = {key: value for key, value in change.items() if key not in texts}
    return RouteSeen(weights=Weights(**parts) if parts else None, stamp=stamp, **texts)
