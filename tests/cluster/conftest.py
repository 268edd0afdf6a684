"""Fixtures of the tests that need a cluster. `make test-cluster` gives them one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import cluster as clusters
from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster under test: kubectl(), get(), apply(), helm(), namespace(), prometheus()."""
    return clusters.find(Path(os.environ["MOE_SERVE_CACHE"]).resolve())


@pytest.fixture
def own_node(cluster: Cluster) -> Cluster:
    """The cluster, where it is the node of `make cluster`: for what only this node has."""
    if not cluster.own:
        pytest.skip("of the node of `make cluster`; KUBECONFIG names another cluster")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace that enforces the Pod Security Standard `restricted`."""
    with cluster.namespace("test") as name:
        failed = request.session.testsfailed
        yield name
        if request.session.testsfailed > failed:
            cluster.keep_evidence(name)


@pytest.fixture(scope="session")
def gateway(cluster: Cluster) -> tuple[dict[str, str], str]:
    """What an HTTPRoute's `parentRefs` needs, and the gateway's URL."""
    found = cluster.gateway()
    if found is None and not cluster.own:
        pytest.skip(
            f"{clusters.GATEWAY}: no such Gateway with an address; MOE_SERVE_GATEWAY names it"
        )
    assert found, f"{clusters.GATEWAY} has no address"
    return found
