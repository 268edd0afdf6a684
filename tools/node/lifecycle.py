"""From nothing to a node that is Ready, and back to nothing."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import (
    addons,
    binaries,
    components,
    configuration,
    credentials,
    fleet,
    images,
    namespaces,
    preconditions,
)
from .components import Components
from .errors import CommandFailed, NodeError
from .kubernetes import Kubernetes
from .layout import Layout, addresses
from .namespaces import NODE_NAME, Namespaces
from .waiting import wait

FIRST = ("containerd", "etcd", "kube-apiserver")
THEN = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


def up(layout: Layout, *, nodes: int = 0, monitoring: bool = True) -> Kubernetes:
    """A node that is Ready, with `nodes` simulated ones; one that is there already stays.

    It has Prometheus if `monitoring`, or if it had one before.

    Raises:
        NodeError: one line that names what is missing or which part failed, and its last words.
    """
    with _alone(layout):
        return _up(layout, nodes, monitoring)


def programs(
    layout: Layout, *, monitoring: bool = True, more: Sequence[str] = ()
) -> dict[str, Path]:
    """Have all that a node runs, and `more`; what the machine lacks is said before minutes go by.

    Raises:
        NodeError: one line for each thing that is missing, or what the compiler said.
    """
    if namespaces.find(layout) is None:
        preconditions.check(layout)
    with _step("the programs"):
        monitors = binaries.MONITORING_IMAGES if monitoring else ()
        names = (*binaries.NODE_PROGRAMS, *binaries.NODE_IMAGES, *monitors, *more)
        return binaries.build(layout, names)


def _up(layout: Layout, nodes: int, monitoring: bool) -> Kubernetes:
    made = programs(layout, monitoring=monitoring)
    if nodes:
        made["kwok"] = binaries.built(layout, "kwok")
    cluster = client(layout)
    if not _ready(layout, cluster):
        _down(layout)
        preconditions.check(layout)  # a half-started node skipped it, and compiling takes disk
        try:
            _start(layout, made, cluster)
        except BaseException:
            with contextlib.suppress(NodeError):
                _down(layout)
            raise
    _complete(layout, made, cluster, nodes, monitoring)
    return cluster


def client(layout: Layout) -> Kubernetes:
    """Kubectl for the node of this folder."""
    return Kubernetes(kubeconfig=layout.kubeconfig, kubectl_program=binaries.kubectl(layout))


def _ready(layout: Layout, cluster: Kubernetes) -> bool:
    """Whether a whole node runs already."""
    space = namespaces.find(layout)
    if space is None or not (layout.state / "ready").exists():
        return False
    try:
        Components(layout=layout, space=space).require_alive((*FIRST, *THEN))
        cluster.kubectl("get", "--raw=/readyz", seconds=10)
    except NodeError:
        return False
    return True


def _start(layout: Layout, programs: dict[str, Path], cluster: Kubernetes) -> None:
    where = addresses(layout)
    for folder in (layout.logs, layout.pids, layout.containerd):
        folder.mkdir(parents=True, exist_ok=True)
    for log in layout.logs.glob("*.log"):
        log.unlink()
    with _step("certificates and settings"):
        secret = credentials.make(layout, where)
        configuration.write(layout, where, secret)
    space = namespaces.create(layout, where)
    parts = Components(layout=layout, space=space)
    lines = components.commands(layout, where, secret, programs)
    with _step("containerd, etcd and the API server"):
        for name in FIRST:
            parts.start(name, lines[name])
        _alive(parts, "containerd", lambda: images.ctr(space, "version"))
        _empty_containerd(parts, space, lines["containerd"])
        addons.load(layout, space)
        _alive(parts, "kube-apiserver", lambda: cluster.kubectl("get", "--raw=/readyz"))
    with _step("a Ready node"):
        for name in THEN:
            parts.start(name, lines[name])
        _alive(parts, "kubelet", lambda: _node_ready(cluster))
        fleet.dress(cluster)
    with _step("names and gateway"):
        addons.apply(cluster, where)
    (layout.state / "ready").touch()


def _complete(
    layout: Layout,
    programs: dict[str, Path],
    cluster: Kubernetes,
    nodes: int,
    monitoring: bool,
) -> None:
    """What may change while a node runs: Prometheus, the built images, the simulated nodes."""
    space = namespaces.find(layout)
    if space is None:
        raise NodeError("the node ended at once")
    if monitoring:
        with _step("Prometheus"):
            addons.monitor(layout, space, cluster)
    with _step("images"):
        images.ensure_built(layout, space)
    parts = Components(layout=layout, space=space)
    if nodes and parts.pid("kwok") is None:
        parts.start("kwok", components.kwok(layout, addresses(layout), programs["kwok"]))
    if nodes or parts.pid("kwok") is not None:
        with _step(f"{nodes} simulated nodes"):
            fleet.simulate(cluster, nodes)
            _alive(parts, "kwok", lambda: fleet.all_ready(cluster))


def _empty_containerd(parts: Components, space: Namespaces, line: list[str]) -> None:
    """Containerd without what an earlier node left in it that could not clean up."""
    if images.ctr(space, "containers", "ls", "-q").split():
        images.remove_containers(space)
        parts.stop("containerd")
        parts.start("containerd", line)
        _alive(parts, "containerd", lambda: images.ctr(space, "version"))


def _node_ready(cluster: Kubernetes) -> bool:
    states = cluster.get("node", NODE_NAME)["status"]["conditions"]
    return any(state["type"] == "Ready" and state["status"] == "True" for state in states)


def _alive(parts: Components, name: str, answers: Callable[[], object]) -> None:
    """Wait until a part answers, and name the one that ended meanwhile."""

    def fact() -> bool:
        parts.require_alive()
        with contextlib.suppress(CommandFailed):
            return answers() is not False
        return False

    try:
        wait(fact, name, seconds=120, every=0.2)
    except NodeError as error:
        raise NodeError(f"{error}; {name}: {parts.last_words(name)}") from error


def down(layout: Layout) -> None:
    """End the node, whole or half-finished. Programs, images and logs stay in the cache folder.

    Raises:
        NodeError: something of it is still there.
    """
    with _alone(layout):
        _down(layout)


def _down(layout: Layout) -> None:
    if space := namespaces.find(layout):
        parts = Components(layout=layout, space=space)
        for name in reversed(components.ORDER[1:]):
            parts.stop(name)
        with contextlib.suppress(CommandFailed):
            images.remove_containers(space)
        parts.stop("containerd")
    namespaces.destroy(layout)
    for path in layout.state.glob("*"):
        if path != layout.logs:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Nobody else starts or ends the node of this folder meanwhile."""
    layout.cache.mkdir(parents=True, exist_ok=True)
    with (layout.cache / "cluster.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NodeError(f"{lock.name}: another make cluster is at work; wait for it") from error
        yield


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    begun = time.monotonic()
    print(f"  {what}", flush=True)
    yield
    print(f"  {what}: {time.monotonic() - begun:.1f} s", flush=True)
