"""PURE. The judge's JSON as the one word that a rollout needs."""

from collections.abc import Mapping
from typing import Any

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.observation import JudgeResult, JudgeUnavailable


def judge_result_of(
    body: Mapping[str, Any], *, now: float, fresh_seconds: float
) -> JudgeResult | JudgeUnavailable:
    """The word in `/v1/verdict`; one that is old or rests on a source that failed is none."""
    try:
        if body["fault"] is not None:
            return JudgeUnavailable(reason=str(body["fault"]))
        judged_at = float(body["judged_at"])
        if now - judged_at > fresh_seconds:
            return JudgeUnavailable(reason="it judged too long ago")
        quality = body["quality"]
        outcome = quality["outcome"]
        return JudgeResult(
            verdict=Verdict(body["verdict"]),
            reason=f"{body['reason']}{_against(body)}",
            quality=None if outcome is None else QualityOutcome(outcome),
            quality_reason=str(quality["reason"]),
            judged_at=judged_at,
            since=float(body["window"]["start"]) if "window" in body else None,
            rules=str(body.get("analysis_plan_digest", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        return JudgeUnavailable(reason=f"what it says cannot be read: {error!r}")


def _against(body: Mapping[str, Any]) -> str:
    """How good the evidence is, where the judge knows what the canary is held against."""
    comparator = body.get("comparator")
    return f" (evidence {body['evidence']}, against {comparator})" if comparator else ""
