"""A state as JSON and back, for whoever keeps it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from moe_serve.errors import RolloutError
from moe_serve.rollout.observation import Identity
from moe_serve.rollout.state import (
    Entry,
    EntryKind,
    Hold,
    HoldReason,
    PendingHold,
    PromotionEvidence,
    RolloutPhase,
    RolloutState,
)
from moe_serve.rollout.weights import Track

FORMAT = 1


def to_json(state: RolloutState) -> dict[str, Any]:
    """JSON's own types."""
    return {"format": FORMAT, **asdict(state)}


def from_json(body: Mapping[str, Any]) -> RolloutState:
    """The state that was stored.

    Raises:
        RolloutError: it is no state, or one of another format.
    """
    if body.get("format") != FORMAT:
        raise RolloutError(f"stored state has format {body.get('format')}, known is {FORMAT}")
    values = {key: value for key, value in body.items() if key != "format"}
    try:
        values["phase"] = RolloutPhase(values["phase"])
        values["judged"] = {
            Track(track): Identity(**who) for track, who in values["judged"].items()
        }
        values["history"] = tuple(
            Entry(**{**entry, "kind": EntryKind(entry["kind"])}) for entry in values["history"]
        )
        if (back := values["rolled_back_from"]) is not None:
            values["rolled_back_from"] = RolloutPhase(back)
        if (evidence := values["evidence"]) is not None:
            values["evidence"] = PromotionEvidence(**evidence)
        if (pending_hold := values["pending_hold"]) is not None:
            values["pending_hold"] = PendingHold(
                **{**pending_hold, "reason": HoldReason(pending_hold["reason"])}
            )
        if (hold := values["hold"]) is not None:
            typed = {"reason": HoldReason(hold["reason"]), "resume": RolloutPhase(hold["resume"])}
            values["hold"] = Hold(**{**hold, **typed})
        return RolloutState(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RolloutError(f"stored state cannot be read: {error!r}") from error
