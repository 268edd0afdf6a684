"""PURE. A rollout's HTTPRoute as JSON, and back."""

from typing import Any

from moe_serve.rollout.observation import RouteForeign, RouteSeen
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.weights import ALL, Track, Weights

MANAGER = "moe-serve-canary"
LABEL, ROLLOUT, REVISION = (
    "app.kubernetes.io/managed-by",
    "moe-serve.io/rollout",
    "moe-serve.io/revision",
)
_GATEWAY_API = "gateway.networking.k8s.io"


def route_body(plan: RolloutPlan, weights: Weights, *, rollout: str, stamp: int) -> dict[str, Any]:
    """The dedicated route, with every default written out: what comes back is then equal."""
    return {
        "apiVersion": f"{_GATEWAY_API}/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": plan.route.name,
            "labels": {LABEL: MANAGER, "app.kubernetes.io/part-of": "moe-serve"},
            "annotations": {ROLLOUT: rollout, REVISION: str(stamp)},
        },
        "spec": _spec(plan, weights),
    }


def _spec(plan: RolloutPlan, weights: Weights) -> dict[str, Any]:
    gateway = plan.route.gateway
    assert gateway is not None, "a plan with a dedicated route has a Gateway"
    parent = {"group": _GATEWAY_API, "kind": "Gateway", "name": gateway.name}
    if gateway.namespace:
        parent["namespace"] = gateway.namespace
    if gateway.section:
        parent["sectionName"] = gateway.section
    spec: dict[str, Any] = {
        "parentRefs": [parent],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": gateway.path}}],
                "backendRefs": [
                    {
                        "group": "",
                        "kind": "Service",
                        "name": part.service,
                        "port": part.port,
                        "weight": weights.of(track),
                    }
                    for track, part in plan.tracks.items()
                    if weights.of(track)
                ],
            }
        ],
    }
    if gateway.hostnames:
        spec["hostnames"] = list(gateway.hostnames)
    return spec


def dedicated(plan: RolloutPlan, found: dict[str, Any], rollout: str) -> RouteSeen | RouteForeign:
    """What a route of the dedicated name says."""
    labels = found["metadata"].get("labels") or {}
    if labels.get(LABEL) != MANAGER:
        return RouteForeign(
            detail=f"HTTPRoute {plan.route.name} is not this controller's (no label "
            f"{LABEL}={MANAGER}): give the plan another route.name"
        )
    rules = found["spec"].get("rules") or [{}]
    weights, other = shares(plan, rules[0].get("backendRefs") or [])
    altered = other
    if weights is not None and not other and found["spec"] != _spec(plan, weights):
        changed = sorted(
            key
            for key in found["spec"].keys() | _spec(plan, weights).keys()
            if found["spec"].get(key) != _spec(plan, weights).get(key)
        )
        altered = f"another {' and '.join(changed)} than the plan says"
    return RouteSeen(
        weights=weights, stamp=_stamp(found, rollout), altered=altered, refused=refusal(found)
    )


def shares(plan: RolloutPlan, backends: list[dict[str, Any]]) -> tuple[Weights | None, str]:
    """The tracks' percentages, and what cannot be expressed in them."""
    services = {part.service: track for track, part in plan.tracks.items()}
    parts: dict[Track, int] = {}
    for backend in backends:
        weight = backend.get("weight", 1)
        track = services.get(backend["name"])
        if weight and (track is None or backend.get("kind", "Service") != "Service"):
            return None, f"traffic for {backend['name']}, which is no arm of the plan"
        if track is not None:
            parts[track] = parts.get(track, 0) + weight
    whole = sum(parts.values())
    if not whole:
        return None, "no traffic for any arm"
    percent = {track: part * ALL / whole for track, part in parts.items()}
    if any(share != int(share) for share in percent.values()):
        return None, f"weights {parts} that are no whole percentages"
    return Weights(**{**{track.value: 0 for track in Track}, **_whole(percent)}), ""


def _whole(percent: dict[Track, float]) -> dict[str, int]:
    return {track.value: int(share) for track, share in percent.items()}


def _stamp(found: dict[str, Any], rollout: str) -> int:
    notes = found["metadata"].get("annotations") or {}
    text = notes.get(REVISION, "")
    return int(text) if notes.get(ROLLOUT) == rollout and text.isdecimal() else -1


def refusal(found: dict[str, Any]) -> str:
    """Why no gateway takes the route; empty if one does."""
    parents = (found.get("status") or {}).get("parents") or []
    if not parents:
        return "none has looked at it yet; is the Gateway's name right, and a controller there?"
    for parent in parents:
        for condition in parent.get("conditions") or []:
            if condition["type"] in ("Accepted", "ResolvedRefs") and condition["status"] == "False":
                return f"{condition['reason']}: {' '.join(condition.get('message', '').split())}"
    return ""


def shared(plan: RolloutPlan, found: dict[str, Any]) -> RouteSeen | RouteForeign:
    """What our rule of somebody's route says."""
    backends = our_backends(plan, found)
    if isinstance(backends, str):
        return RouteForeign(detail=backends)
    weights, other = shares(plan, backends)
    return RouteSeen(weights=weights, stamp=None, altered=other, refused=refusal(found))


def our_backends(plan: RolloutPlan, found: dict[str, Any]) -> list[dict[str, Any]] | str:
    """The backends of our rule, or why they are not all there."""
    name, index = plan.route.name, plan.route.rule
    rules = found["spec"].get("rules") or []
    if index >= len(rules):
        return f"HTTPRoute {name} has no rule {index}, only {len(rules)}"
    backends: list[dict[str, Any]] = rules[index].get("backendRefs") or []
    there = [backend["name"] for backend in backends]
    for part in plan.tracks.values():
        if there.count(part.service) != 1:
            return f"HTTPRoute {name}, rule {index}: {part.service} must be there once"
    return backends


def weights_patch(
    plan: RolloutPlan, found: dict[str, Any], weights: Weights
) -> list[dict[str, Any]]:
    """The change of our weights alone; it fails if anything moved since `found` was read."""
    services = {part.service: track for track, part in plan.tracks.items()}
    backends = our_backends(plan, found)
    assert not isinstance(backends, str), "only a route whose backends are there is written"
    patch: list[dict[str, Any]] = [
        {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": found["metadata"]["resourceVersion"],
        }
    ]
    for number, backend in enumerate(backends):
        place = f"/spec/rules/{plan.route.rule}/backendRefs/{number}"
        track = services.get(backend["name"])
        if track is None:
            continue
        patch += [
            {"op": "test", "path": f"{place}/name", "value": backend["name"]},
            {"op": "add", "path": f"{place}/weight", "value": weights.of(track)},
        ]
    return patch
