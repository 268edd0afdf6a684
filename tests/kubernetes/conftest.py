"""The cluster's fixture, for the tests that are held against a real API server."""

from tests.cluster.conftest import cluster

__all__ = ["cluster"]
