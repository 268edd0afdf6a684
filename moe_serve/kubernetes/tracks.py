"""The tracks as their pods and endpoints show them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moe_serve.kubernetes.api import Api, Json
from moe_serve.kubernetes.watched import Watched
from moe_serve.rollout.observation import Identity, PodStatus, TrackStatus
from moe_serve.rollout.plan import RolloutPlan, TrackPlan
from moe_serve.rollout.weights import Track

TRACK_LABEL, SERVICE_LABEL = "moe-serve.io/arm", "kubernetes.io/service-name"
DIGEST = "moe-serve.io/pod-spec-digest"


@dataclass(slots=True)
class Tracks:
    """Watches the pods and EndpointSlices of a plan's tracks."""

    plan: RolloutPlan
    pods: Watched
    slices: Watched

    def observe(self) -> Mapping[Track, TrackStatus]:
        """Every track now.

        Raises:
            ClusterError: what is known is not in date.
        """
        return tracks(self.plan, self.pods.objects(), self.slices.objects())


def watch_tracks(api: Api, plan: RolloutPlan, on_change: Callable[[], None]) -> Tracks:
    """The watches of a plan's tracks, not started yet."""

    def watched(path: str, label: str, values: list[str]) -> Watched:
        query = {"labelSelector": f"{label} in ({','.join(values)})"}
        return Watched(api, path, query, on_change)

    parts = plan.tracks.values()
    space = f"namespaces/{api.namespace}"
    return Tracks(
        plan,
        watched(f"/api/v1/{space}/pods", TRACK_LABEL, [part.label for part in parts]),
        watched(
            f"/apis/discovery.k8s.io/v1/{space}/endpointslices",
            SERVICE_LABEL,
            [part.service for part in parts],
        ),
    )


def tracks(
    plan: RolloutPlan, pods: Sequence[Json], slices: Sequence[Json]
) -> Mapping[Track, TrackStatus]:
    """PURE. What pods and EndpointSlices say of each track."""
    return {track: _track(part, pods, slices) for track, part in plan.tracks.items()}


def _track(part: TrackPlan, pods: Sequence[Json], slices: Sequence[Json]) -> TrackStatus:
    ours = [s for s in slices if s["metadata"]["labels"].get(SERVICE_LABEL) == part.service]
    ready = {
        endpoint["targetRef"]["name"]
        for found in ours
        for endpoint in found.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") and endpoint.get("targetRef")
    }
    labelled = {
        pod["metadata"]["name"]: pod
        for pod in pods
        if pod["metadata"]["labels"].get(TRACK_LABEL) == part.label
    }
    # A Service that selects more than its track's pods sends requests to what nobody judged.
    unknown = Identity(pod_spec_digest="without the arm's label", image_id=None)
    strays = [
        PodStatus(name=name, ready=True, identity=unknown) for name in sorted(ready - set(labelled))
    ]
    found = [
        PodStatus(
            name=name,
            ready=name in ready,
            identity=identity(pod, part),
            unschedulable=_unschedulable(pod),
        )
        for name, pod in sorted(labelled.items())
        if "deletionTimestamp" not in pod["metadata"] and not _over(pod)
    ]
    return TrackStatus(found=bool(ours), pods=(*found, *strays))


def identity(pod: Json, part: TrackPlan) -> Identity:
    """What a pod runs. Without the chart's annotation the digest is taken of its own spec, in
    which the release's name stands for nothing.
    """
    notes = pod["metadata"].get("annotations") or {}
    return Identity(pod_spec_digest=notes.get(DIGEST) or _digest(pod, part), image_id=_images(pod))


def _digest(pod: Json, part: TrackPlan) -> str:
    kept = ("name", "image", "command", "args", "env", "envFrom")
    containers = [
        {key: container.get(key) for key in kept}
        for kind in ("initContainers", "containers")
        for container in pod["spec"].get(kind) or []
    ]
    text = json.dumps(containers, sort_keys=True)
    for name in sorted({part.service, part.label}, key=len, reverse=True):
        text = text.replace(name, "ARM")
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _images(pod: Json) -> str | None:
    wanted = {container["name"] for container in pod["spec"].get("containers") or []}
    known = {
        status["name"]: status["imageID"].rpartition("@")[2]
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        if status.get("imageID")
    }
    if not wanted or wanted - set(known):
        return None
    return "+".join(sorted({known[name] for name in wanted}))


def _unschedulable(pod: Json) -> bool:
    return any(
        condition["type"] == "PodScheduled"
        and condition["status"] == "False"
        and condition.get("reason") == "Unschedulable"
        for condition in (pod.get("status") or {}).get("conditions") or []
    )


def _over(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
