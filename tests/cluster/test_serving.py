"""The real image, real vLLM in it, behind a real gateway, seen by a real Prometheus."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.cluster import serving
from tests.cluster.cluster import IMAGE, Cluster
from tools.node.preconditions import GIB, lacking_memory
from tools.node.waiting import wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def arm(cluster: Cluster, gateway: tuple[dict[str, str], str]) -> Iterator[str]:
    """The namespace of one arm that is ready."""
    parent, _ = gateway
    cluster.require_images()
    if cluster.own:
        assert not [*lacking_memory(6 * GIB, "a server on a CPU")]
    with cluster.namespace("serving") as namespace:
        cluster.apply(serving.manifest(parent), "--namespace", namespace)
        cluster.kubectl(
            *("--namespace", namespace, "rollout", "status", f"deployment/{serving.NAME}"),
            f"--timeout={serving.START_SECONDS}s",
            seconds=serving.START_SECONDS + 10,
        )
        yield namespace


def _pod(cluster: Cluster, namespace: str) -> dict[str, object]:
    (pod,) = cluster.get("pods", "--namespace", namespace)["items"]
    found: dict[str, object] = pod
    return found


def test_a_completion_comes_through_the_gateway(
    cluster: Cluster, arm: str, gateway: tuple[dict[str, str], str]
) -> None:
    _, url = gateway

    def routed() -> httpx.Response | None:
        question = {"model": serving.MODEL, "prompt": "12+3=", "max_tokens": 4, "temperature": 0}
        answer = httpx.post(
            f"{url}/v1/completions",
            json=question,
            headers={"Host": f"{serving.NAME}.example"},
            timeout=30,
            trust_env=False,
        )
        # Until Traefik has the route, it is Traefik itself that says 404, without JSON.
        return answer if answer.headers.get("content-type") == "application/json" else None

    answer = wait(routed, "an answer of vLLM through the gateway", seconds=60)

    assert answer.status_code == httpx.codes.OK, answer.text
    assert answer.json()["model"] == serving.MODEL
    assert answer.json()["usage"]["completion_tokens"] > 0


def test_another_host_name_does_not_reach_it(arm: str, gateway: tuple[dict[str, str], str]) -> None:
    _, url = gateway

    answer = httpx.get(
        f"{url}/health", headers={"Host": "other.example"}, timeout=10, trust_env=False
    )

    assert answer.status_code == httpx.codes.NOT_FOUND


def test_preflight_ran_before_the_server_and_passed(cluster: Cluster, arm: str) -> None:
    statuses = _pod(cluster, arm)["status"]["initContainerStatuses"]  # type: ignore[index]
    (preflight,) = (status for status in statuses if status["name"] == "preflight")

    assert preflight["state"]["terminated"]["exitCode"] == 0
    table = json.loads(
        cluster.kubectl("--namespace", arm, "logs", f"deployment/{serving.NAME}", "-cpreflight")
    )
    passed = {check["name"] for check in table["checks"] if check["passed"]}
    assert {"vllm", "plugin", "pads", "HOME", "HF_HOME", "shm"} <= passed, table


def test_the_server_runs_as_nobody_in_particular_and_can_write_nowhere_else(
    cluster: Cluster, arm: str
) -> None:
    script = (
        "import os; print(os.getuid(), os.getgid()); "
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')]); "
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('Seccomp:')]); "
        "print(next(l.split()[3][:2] for l in open('/proc/mounts') if l.split()[1] == '/'))"
    )

    printed = cluster.kubectl(
        *("--namespace", arm, "exec", f"deployment/{serving.NAME}", "-cserver", "--"),
        *("python3", "-c", script),
    )

    assert printed.splitlines() == ["2000 0", "['0000000000000000']", "['2']", "ro"]


def test_prometheus_has_the_exporters_and_vllms_metrics_with_the_labels_that_the_judge_reads(
    cluster: Cluster, arm: str
) -> None:
    pod = _pod(cluster, arm)["metadata"]["name"]  # type: ignore[index]
    wanted = {"namespace": arm, "arm": serving.NAME, "model": serving.MODEL, "track": "stable"}
    if cluster.prometheus("vector(1)") is None and not cluster.own:
        pytest.skip("the cluster has no Prometheus where MOE_SERVE_PROMETHEUS_SERVICE says")

    for metric in ("moe_serve_kernel_invocations_total", "vllm:num_requests_running"):
        query = f'{{__name__="{metric}", namespace="{arm}"}}'
        series = wait(lambda query=query: cluster.prometheus(query), query, seconds=240, every=1)  # type: ignore[misc]
        labels = series[0]["metric"]
        assert {**labels, **wanted, "pod": pod} == labels


def test_a_pod_that_asks_for_root_is_refused(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(Exception, match="violates PodSecurity"):
        cluster.kubectl("--namespace", namespace, "run", "rooted", f"--image={IMAGE}")
