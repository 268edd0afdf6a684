"""What the controller relies on, of the fakes and of a real API server alike."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from moe_serve.errors import RolloutError
from moe_serve.kubernetes.api import Api, ClusterError, Patch, connect
from moe_serve.kubernetes.events import Events
from moe_serve.kubernetes.lease import Leadership
from moe_serve.kubernetes.route import Route
from moe_serve.kubernetes.store import ABORT, APPROVE, Store
from moe_serve.rollout.observation import HumanRequest, RouteAbsent, RouteForeign, RouteSeen
from moe_serve.rollout.ports import StoredRollout
from moe_serve.rollout.state import initial
from moe_serve.rollout.weights import NO_CANARY_TRAFFIC, Weights
from tests.kubernetes.fakes import (
    FakeEvents,
    FakeLeadership,
    FakeRoute,
    FakeStore,
    Server,
)
from tests.rollout.world import plan_of

PLAN = plan_of()
STEP = PLAN.weight_steps[1]


@dataclass(slots=True, kw_only=True)
class Side:
    """One way to have a cluster: clients of it, and what strangers and people do to it."""

    route: Callable[[], Any]
    store: Callable[[], Any]
    leadership: Callable[[str], Any]
    events: Callable[[], Any]
    wait: Callable[[float], None]
    change_route: Callable[[Weights], None]
    disown_route: Callable[[], None]
    delete_route: Callable[[], None]
    ask: Callable[[int, str], None]
    count_events: Callable[[], int]


def _fake() -> Side:
    server, now = Server(), [0.0]

    def change(weights: Weights) -> None:
        server.weights, server.route_version = weights, server.route_version + 1

    def wait(seconds: float) -> None:
        now[0] += seconds

    return Side(
        route=lambda: FakeRoute(server),
        store=lambda: FakeStore(server),
        leadership=lambda me: FakeLeadership(server, me, now),
        events=lambda: FakeEvents(server),
        wait=wait,
        change_route=change,
        disown_route=lambda: setattr(server, "ours", False),
        delete_route=lambda: setattr(server, "weights", None),
        ask=lambda approve, abort: setattr(
            server, "human_request", HumanRequest(approve=approve, abort=abort)
        ),
        count_events=lambda: len(server.events),
    )


def _real(api: Api) -> Side:
    now = [0.0]
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{api.namespace}/httproutes/gptoss"

    def change(weights: Weights) -> None:
        found = api.get(path)
        found["spec"]["rules"][0]["backendRefs"] = [
            {"name": part.service, "port": part.port, "weight": weights.of(track)}
            for track, part in PLAN.tracks.items()
        ]
        api.replace(path, found)

    def disown() -> None:
        labels = {"app.kubernetes.io/managed-by": "Helm"}
        api.patch(path, {"metadata": {"labels": labels}}, Patch.MERGE)

    def ask(approve: int, abort: str) -> None:
        Store(api, "gptoss-rollout").ask(APPROVE, str(approve))
        Store(api, "gptoss-rollout").ask(ABORT, abort)

    def wait(seconds: float) -> None:
        now[0] += seconds

    events = f"/api/v1/namespaces/{api.namespace}/events"
    return Side(
        route=lambda: Route(api, PLAN),
        store=lambda: Store(api, "gptoss-rollout"),
        leadership=lambda me: Leadership(api, "gptoss-rollout", me, lambda: now[0]),
        events=lambda: Events(api, "gptoss-rollout"),
        wait=wait,
        change_route=change,
        disown_route=disown,
        delete_route=lambda: _delete(api, path),
        ask=ask,
        count_events=lambda: len(api.get(events)["items"]),
    )


def _delete(api: Api, path: str) -> None:
    api._json("DELETE", path, None, {})


@pytest.fixture
def fake() -> Side:
    return _fake()


@pytest.fixture(scope="module")
def api(cluster: Any) -> Iterator[Api]:
    with cluster.namespace("rollout") as name:
        yield connect(name, kubeconfig=str(cluster.kubernetes.kubeconfig))


@pytest.fixture
def real(api: Api, cluster: Any) -> Iterator[Side]:
    yield _real(api)
    kinds = "httproutes,configmaps,leases,events"
    cluster.kubectl("delete", kinds, "--all", "-n", api.namespace, seconds=60)


@pytest.fixture(
    params=["fake", pytest.param("real", marks=[pytest.mark.cluster, pytest.mark.smoke])]
)
def side(request: pytest.FixtureRequest) -> Side:
    return request.getfixturevalue(request.param)


def test_a_route_that_is_not_there_is_made_and_read_back_as_it_was_asked_for(side: Side) -> None:
    route = side.route()
    assert route.read("r-1") == RouteAbsent()
    route.create(NO_CANARY_TRAFFIC, rollout="r-1", stamp=3)
    found = route.read("r-1")
    assert (found.weights, found.stamp, found.altered) == (NO_CANARY_TRAFFIC, 3, "")
    route.set_weights(STEP, rollout="r-1", stamp=4)
    found = side.route().read("r-1")
    assert (found.weights, found.stamp, found.altered) == (STEP, 4, "")
    assert side.route().read("r-2").stamp == -1


def test_a_route_is_made_once(side: Side) -> None:
    side.route().create(NO_CANARY_TRAFFIC, rollout="r-1", stamp=1)
    with pytest.raises(RolloutError, match="409"):
        side.route().create(STEP, rollout="r-1", stamp=2)
    assert side.route().read("r-1").weights == NO_CANARY_TRAFFIC


def test_a_route_that_changed_since_it_was_read_is_not_written(side: Side) -> None:
    side.route().create(NO_CANARY_TRAFFIC, rollout="r-1", stamp=1)
    slow = side.route()
    slow.read("r-1")
    side.change_route(STEP)
    with pytest.raises(RolloutError, match="409"):
        slow.set_weights(NO_CANARY_TRAFFIC, rollout="r-1", stamp=2)
    assert side.route().read("r-1").weights == STEP


def test_a_strangers_change_is_seen_with_our_old_stamp_and_can_be_taken_back(side: Side) -> None:
    route = side.route()
    route.create(STEP, rollout="r-1", stamp=7)
    side.change_route(Weights(stable=50, canary=50))
    found = route.read("r-1")
    assert isinstance(found, RouteSeen)
    assert (found.weights, found.stamp) == (Weights(stable=50, canary=50), 7)
    route.set_weights(NO_CANARY_TRAFFIC, rollout="r-1", stamp=8)
    found = route.read("r-1")
    assert (found.weights, found.stamp, found.altered) == (NO_CANARY_TRAFFIC, 8, "")


def test_a_route_without_our_label_is_foreign(side: Side) -> None:
    side.route().create(NO_CANARY_TRAFFIC, rollout="r-1", stamp=1)
    side.disown_route()
    assert isinstance(side.route().read("r-1"), RouteForeign)


def test_a_route_that_was_deleted_is_absent(side: Side) -> None:
    side.route().create(NO_CANARY_TRAFFIC, rollout="r-1", stamp=1)
    side.delete_route()
    assert side.route().read("r-1") == RouteAbsent()


def test_a_state_is_kept_as_it_was(side: Side) -> None:
    store, state = side.store(), initial(PLAN, 1000.0)
    assert store.load() == StoredRollout()
    store.save(state, {"events": 1})
    assert side.store().load() == StoredRollout(state=state, notified={"events": 1})


def test_of_two_who_write_the_same_state_one_is_refused(side: Side) -> None:
    first, second, state = side.store(), side.store(), initial(PLAN, 1000.0)
    for store in (first, second):
        store.load()
    first.save(state, {})
    with pytest.raises(RolloutError, match="409"):
        second.save(initial(PLAN, 2000.0), {})
    first.save(state, {"events": 2})
    assert side.store().load() == StoredRollout(state=state, notified={"events": 2})


def test_a_persons_wish_outlives_a_save(side: Side) -> None:
    store, state = side.store(), initial(PLAN, 1000.0)
    store.load()
    store.save(state, {})
    side.ask(4, "r-1")
    with contextlib.suppress(RolloutError):  # the annotation is a write, too; a look tries again
        store.save(state, {"events": 1})
    store.load()
    store.save(state, {"events": 1})
    assert side.store().load().human_request == HumanRequest(approve=4, abort="r-1")


def test_one_leads_until_it_was_silent_for_the_whole_lease(side: Side) -> None:
    first, second = side.leadership("a"), side.leadership("b")
    assert first.take()
    assert first.holds
    assert not second.take()
    side.wait(25)
    assert not first.holds  # it might be late: it writes nothing before it renewed
    assert first.take()
    side.wait(25)
    assert not second.take()
    side.wait(31)
    assert second.take()
    assert not first.take()
    assert not first.holds


def test_a_lease_that_is_given_back_is_free_at_once(side: Side) -> None:
    first, second = side.leadership("a"), side.leadership("b")
    assert first.take()
    first.release()
    assert second.take()
    assert second.holds
    assert not first.holds


def test_the_same_controller_leads_on_after_a_restart(side: Side) -> None:
    assert side.leadership("a").take()
    assert side.leadership("a").take()


def test_an_event_that_is_told_twice_is_there_once(side: Side) -> None:
    entry = initial(PLAN, time.time()).history[0]
    assert side.events().notify("r-1", entry)
    assert side.events().notify("r-1", entry)
    assert side.count_events() == 1


SHARED = plan_of(route={"name": "theirs", "owner": "shared", "rule": 1})


def theirs(weights: Weights) -> dict[str, Any]:
    """Somebody's route: our rule stands between two of theirs."""
    ours = [
        {"name": part.service, "port": part.port, "weight": weights.of(track)}
        for track, part in SHARED.tracks.items()
    ]
    rules = [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "timeouts": {"request": "600s"},
            "backendRefs": backends,
        }
        for path, backends in (
            ("/chat", [{"name": "chat", "port": 80, "weight": 7}]),
            ("/v1", ours),
            ("/", [{"name": "site", "port": 8080}]),
        )
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": SHARED.route.name, "labels": {"team": "web"}},
        "spec": {"parentRefs": [{"name": "inference"}], "rules": rules},
    }  # fmt: skip


@pytest.mark.cluster
@pytest.mark.smoke
@pytest.mark.usefixtures("real")
def test_in_somebodys_route_our_weights_alone_are_written_and_never_over_a_change(api: Api) -> None:
    parent = f"/apis/gateway.networking.k8s.io/v1/namespaces/{api.namespace}/httproutes"
    path = f"{parent}/{SHARED.route.name}"
    api.create(parent, theirs(NO_CANARY_TRAFFIC))
    before = api.get(path)
    route = Route(api, SHARED)
    assert route.read("r-1").weights == NO_CANARY_TRAFFIC
    route.set_weights(STEP, rollout="r-1", stamp=1)
    after = api.get(path)
    assert Route(api, SHARED).read("r-1").weights == STEP
    for backend, wanted in zip(
        before["spec"]["rules"][1]["backendRefs"],
        theirs(STEP)["spec"]["rules"][1]["backendRefs"],
        strict=True,
    ):
        backend["weight"] = wanted["weight"]
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == {"team": "web"}
    assert "annotations" not in after["metadata"]
    route.read("r-1")
    after["spec"]["rules"][0]["backendRefs"][0]["weight"] = 8
    changed = api.replace(path, after)
    with pytest.raises(ClusterError) as refused:
        route.set_weights(NO_CANARY_TRAFFIC, rollout="r-1", stamp=2)
    assert refused.value.status in (409, 422)
    assert api.get(path)["spec"] == changed["spec"] == after["spec"]


@pytest.mark.cluster
@pytest.mark.smoke
def test_the_last_fault_is_told_and_no_line_of_the_history(real: Side) -> None:
    events = real.events()
    events.notify("r-1", initial(PLAN, time.time()).history[0])
    assert events.last_fault() == ""
    for _ in range(2):  # as of two controllers
        events.warn("GET leases: 403", 1_800_000_000.0)
    assert events.last_fault() == "2027-01-15T08:00:00Z: GET leases: 403"
    assert real.count_events() == 2


@pytest.mark.cluster
@pytest.mark.smoke
def test_a_state_that_cannot_be_read_says_so(api: Api, real: Side) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {}}
    api.create(f"/api/v1/namespaces/{api.namespace}/configmaps", body)
    with pytest.raises(RolloutError, match="ConfigMap x holds no state that can be read"):
        Store(api, "x").load()


@pytest.mark.cluster
@pytest.mark.smoke
def test_what_is_refused_is_one_line(cluster: Any) -> None:
    api = connect("default", kubeconfig=str(cluster.kubernetes.kubeconfig))
    settings = api.calls.configuration
    assert settings.api_key
    settings.refresh_api_key_hook = None  # it would read the right one anew
    settings.api_key = dict.fromkeys(settings.api_key, "Bearer wrong")
    with pytest.raises(ClusterError) as caught:
        Store(api, "x").load()
    assert "\n" not in str(caught.value)
    assert caught.value.status == 401
