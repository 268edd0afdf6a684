"""A state as JSON and back, for whoever keeps it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from moe_serve.errors import RolloutError
from moe_serve.rollout.observation import Identity
from moe_serve.rollout.state import (
    Concern,
    Entry,
    Evidence,
    Hold,
    Kind,
    Phase,
    State,
    Trouble,
)
from moe_serve.rollout.weights import Arm

FORMAT = 1


def to_json(state: State) -> dict[str, Any]:
    """JSON's own types."""
    return {"format": FORMAT, **asdict(state)}


def from_json(body: Mapping[str, Any]) -> State:
    """The state that was stored.

    Raises:
        RolloutError: it is no state, or one of another format.
    """
    if body.get("format") != FORMAT:
        raise RolloutError(f"stored state has format {body.get('format')}, known is {FORMAT}")
    values = {key: value for key, value in body.items() if key != "format"}
    try:
        values["phase"] = Phase(values["phase"])
        values["judged"] = {Arm(arm): Identity(**who) for arm, who in values["judged"].items()}
        values["history"] = tuple(
            Entry(**{**entry, "kind": Kind(entry["kind"])}) for entry in values["history"]
        )
        if (back := values["rolled_back_from"]) is not None:
            values["rolled_back_from"] = Phase(back)
        if (evidence := values["evidence"]) is not None:
            values["evidence"] = Evidence(**evidence)
        if (concern := values["concern"]) is not None:
            values["concern"] = Concern(**{**concern, "trouble": Trouble(concern["trouble"])})
        if (hold := values["hold"]) is not None:
            typed = {"cause": Trouble(hold["cause"]), "resume": Phase(hold["resume"])}
            values["hold"] = Hold(**{**hold, **typed})
        return State(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RolloutError(f"stored state cannot be read: {error!r}") from error
