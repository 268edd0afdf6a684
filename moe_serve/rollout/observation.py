"""What a controller sees at one moment. What cannot be seen is a value of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.weights import Track, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a pod runs: the digest of its arguments and environment, and its image's ID, which is
    None until the image is there.
    """

    pod_spec_digest: str
    image_id: str | None

    def agrees(self, other: "Identity") -> bool:
        """Nothing that is known of both differs."""
        images = (self.image_id, other.image_id)
        same_image = None in images or self.image_id == other.image_id
        return self.pod_spec_digest == other.pod_spec_digest and same_image


@dataclass(frozen=True, slots=True, kw_only=True)
class PodStatus:
    """`ready`: its Service sends requests to it."""

    name: str
    ready: bool
    identity: Identity
    unschedulable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStatus:
    """`found`: its Service is there."""

    found: bool
    pods: tuple[PodStatus, ...] = ()

    def ready(self, identity: Identity | None = None) -> int:
        """Ready pods; with an identity, only those that have it."""
        return sum(pod.ready and identity in (None, pod.identity) for pod in self.pods)

    @property
    def unschedulable(self) -> int:
        """Pods that no node has room for."""
        return sum(pod.unschedulable for pod in self.pods)

    @property
    def identities(self) -> frozenset[Identity]:
        """Of the ready pods."""
        return frozenset(pod.identity for pod in self.pods if pod.ready)

    def unexpected_pods(self, known: Identity) -> tuple[str, ...]:
        """Pods, ready or still coming, that run something else."""
        return tuple(pod.name for pod in self.pods if not pod.identity.agrees(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAbsent:
    """The dedicated route is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteForeign:
    """A route is there that this rollout must not touch, or cannot read: `detail` says why."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSeen:
    """The weights in force; None if they are none that a plan could ask for.

    `stamp` is the revision that they were written for: -1 for one of an earlier rollout, None
    where a route carries no stamp. `altered` says what else of a route of ours was changed, and
    `refused` why no gateway takes it.
    """

    weights: Weights | None
    stamp: int | None
    altered: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeResult:
    """What the judge says. `since` is the start of its comparison, `rules` its policy's digest."""

    verdict: Verdict
    reason: str
    quality: QualityOutcome | None
    quality_reason: str
    judged_at: float
    since: float | None = None
    rules: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeUnavailable:
    """The judge cannot be asked, or its source failed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanRequest:
    """What a person asked for: `approve` names the revision of a hold, `abort` a rollout."""

    approve: int | None = None
    abort: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """`faults` say what could not be seen; with one, nothing else counts.

    `load_pods`: the whole traffic, in pods kept fully busy; None if not measured.
    `clock_jump_seconds`: how far the clock was set since the last look.
    `refused`: why the write of the route that is still missing failed more than once.
    """

    route: RouteSeen | RouteAbsent | RouteForeign
    tracks: Mapping[Track, TrackStatus]
    judge_result: JudgeResult | JudgeUnavailable
    human_request: HumanRequest = field(default_factory=HumanRequest)
    load_pods: float | None = None
    clock_jump_seconds: float = 0.0
    faults: tuple[str, ...] = ()
    refused: str = ""

    def track(self, track: Track) -> TrackStatus:
        """One track; an absent one has no pods."""
        return self.tracks.get(track, TrackStatus(found=False))

    @property
    def ready(self) -> int:
        """Ready pods of all tracks."""
        return sum(track.ready() for track in self.tracks.values())
