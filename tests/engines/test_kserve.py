"""The example for KServe, as a real API server with KServe's definitions takes it."""

from pathlib import Path

import pytest

from tests.engines.conftest import Space
from tools.node import crds
from tools.node.errors import CommandFailed
from tools.node.kubernetes import Kubernetes

pytestmark = pytest.mark.rollouts
EXAMPLE = Path(__file__).parents[2] / "deploy/kserve/canary.yaml"
STRICT = ("--dry-run=server", "--validate=strict")


@pytest.fixture(scope="module")
def defined(cluster: Kubernetes) -> None:
    crds.apply(cluster, "kserve", "prometheus-operator")


@pytest.mark.usefixtures("defined")
def test_the_example_is_valid(cluster: Kubernetes, space: Space) -> None:
    taken = cluster.apply(EXAMPLE.read_text("utf-8"), "-n", space.name, *STRICT)

    assert taken.count("(server dry run)") == 2


@pytest.mark.usefixtures("defined")
def test_a_field_that_kserve_does_not_know_is_refused(cluster: Kubernetes, space: Space) -> None:
    wrong = EXAMPLE.read_text("utf-8").replace("parallelism: {tensor: 1}", "parallelism: {tp: 1}")

    with pytest.raises(CommandFailed, match=r"spec\.parallelism\.tp: field not declared"):
        cluster.apply(wrong, "-n", space.name, *STRICT)
