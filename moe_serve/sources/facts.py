"""What pods say of their own configuration: the labels of their info metrics."""

from collections.abc import Iterable, Sequence

from moe_serve.metrics.labels import UNKNOWN, WORKER_CONFIG_DIGEST
from moe_serve.sources.names import INFOS
from moe_serve.sources.streams import Stream

# Labels that a scrape or the cluster adds; they say where, not what. An arm's names are never its
# configuration.
_WHERE = {
    "rank", "pod", "instance", "job", "namespace", "container", "endpoint", "service", "node",
    "arm", "track",
}  # fmt: skip


def facts(pods: Iterable[Sequence[Stream]], *, arm_label: str = "") -> dict[str, str]:
    """Every fact's values over all pods, sorted and joined by ` | `.

    A digest that one of the pods lacks is a value of its own.
    """
    found: dict[str, set[str]] = {}
    for pod in pods:
        if not any(stream.labels.get(WORKER_CONFIG_DIGEST) for stream in pod):
            found.setdefault(WORKER_CONFIG_DIGEST, set()).add(UNKNOWN)
        for stream in pod:
            if stream.name in INFOS:
                for label, value in stream.labels.items():
                    # A label without a value is none, as Prometheus has it.
                    if label not in _WHERE and label != arm_label and value:
                        found.setdefault(label, set()).add(value)
    return {label: " | ".join(sorted(values)) for label, values in found.items()}
