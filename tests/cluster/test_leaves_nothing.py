"""A machine after a node is the machine before it."""

import shutil
from collections.abc import Iterator

import pytest

from tests.cluster import machine
from tests.cluster.cluster import Cluster
from tools.node.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.smoke, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def snapshots(cluster: Cluster) -> Iterator[dict[str, machine.Snapshot]]:
    """A second node's life on a quiet machine, beside the node under test."""
    if not cluster.own:
        pytest.skip("of the node of `make cluster`; KUBECONFIG names another cluster")
    layout = Layout(cache=cluster.layout.cache / "second")
    shutil.rmtree(layout.cache, ignore_errors=True)
    layout.cache.mkdir()
    layout.binaries.symlink_to(cluster.layout.binaries)
    yield machine.rehearse(layout.cache)
    shutil.rmtree(layout.cache)


def test_a_start_that_was_broken_off_leaves_a_half_node_which_the_next_start_replaces(
    snapshots: dict[str, machine.Snapshot],
) -> None:
    half, during = (" ".join(snapshots[when]["processes"]) for when in ("half", "during"))

    assert (half.count("/etcd --data-dir="), half.count("/kubelet --config=")) == (1, 0)
    assert (during.count("/etcd --data-dir="), during.count("/kubelet --config=")) == (1, 1)


@pytest.mark.parametrize("kind", ["processes", "interfaces", "network namespaces", "cgroups"])
def test_the_comparison_sees_a_node_while_it_lives(
    snapshots: dict[str, machine.Snapshot], kind: str
) -> None:
    assert set(snapshots["during"][kind]) - set(snapshots["before"][kind])


@pytest.mark.parametrize(
    "kind", ["mounts", "rules", "settings", "listening", "folders", "named network namespaces"]
)
def test_a_living_node_does_not_touch_the_machine_s_own(
    snapshots: dict[str, machine.Snapshot], kind: str
) -> None:
    # The link to the node has settings of its own, which go with it.
    during = [fact for fact in snapshots["during"][kind] if "/moe-" not in fact]

    assert during == snapshots["before"][kind]


def test_the_end_leaves_nothing(snapshots: dict[str, machine.Snapshot]) -> None:
    for kind, before in snapshots["before"].items():
        assert (kind, snapshots["after"][kind]) == (kind, before)
