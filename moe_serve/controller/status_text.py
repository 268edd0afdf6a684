"""PURE. Where a rollout stands: one screen for a person, one JSON object for a script."""

import datetime
from typing import Any

from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.replicas import replica_diff
from moe_serve.rollout.state import RolloutState
from moe_serve.rollout.state_json import to_json as stored_json

_LAST = 6


def screen(plan: RolloutPlan, state: RolloutState, now: float, fault: str = "") -> str:
    """A few lines; `fault` is why a look failed, where the state does not say it."""
    step = f", step {state.step + 1} of {len(plan.steps)}" if state.stage == "steps" else ""
    held = f" (in {state.stage})" if state.hold else ""
    force = "in force" if state.in_force is not None else "not in force yet"
    lines = [
        f"rollout   {state.rollout} of {plan.name}",
        f"phase     {state.phase}{held}{step}, for {_span(now - state.phase_since)}",
        f"weights   {_weights(plan, state)} ({force})",
        f"verdict   {state.verdict}{': ' if state.verdict_reason else ''}{state.verdict_reason}",
        f"waits for {state.waiting_for}",
    ]
    if state.plan != plan.digest:
        lines.insert(1, f"plan      it began with {state.plan}; this file is {plan.digest}")
    if (pending_hold := state.pending_hold) and pending_hold.detail not in state.waiting_for:
        lines.append(f"trouble   {pending_hold.reason}: {pending_hold.detail}")
    if fault and fault not in state.waiting_for:
        lines.append(f"fault     {fault}")
    lines += [f"in Git    {line}" for line in replica_diff(plan, state)]
    lines.append("")
    lines += [
        f"{_time(entry.at)}  {entry.title}: {entry.detail}" for entry in state.history[-_LAST:]
    ]
    return "\n".join(lines) + "\n"


def to_json(plan: RolloutPlan, state: RolloutState, fault: str = "") -> dict[str, Any]:
    """The state with the weights and the replica changes in words."""
    same = state.plan == plan.digest
    return {
        **stored_json(state),
        "fault": fault,
        "weights": {track.value: state.weights(plan).of(track) for track in plan.tracks}
        if same
        else None,
        "replica_diff": list(replica_diff(plan, state)),
    }


def _weights(plan: RolloutPlan, state: RolloutState) -> str:
    return str(state.weights(plan)) if state.plan == plan.digest else "those of another plan"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%m-%d %H:%M:%SZ")


def _span(seconds: float) -> str:
    minutes = int(max(0.0, seconds) // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
