"""The rollout's history as Kubernetes Events: each once, however often it is told."""

import datetime
from dataclasses import dataclass

from moe_serve.canary.cluster.api import Api, ClusterError
from moe_serve.canary.cluster.body import MANAGER
from moe_serve.canary.rollout.state import Entry, Kind

_WORRYING = ("held", "rollback")
_LONGEST = 1000


@dataclass(slots=True)
class Events:
    """Events about one rollout's ConfigMap."""

    api: Api
    about: str
    name: str = "events"

    def tell(self, rollout: str, entry: Entry) -> bool:
        """Write one Event; its name is the revision's, so that a second is the same one.

        Raises:
            ClusterError: it could not be written.
        """
        time = datetime.datetime.fromtimestamp(entry.at, datetime.UTC)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ")
        worrying = entry.kind is Kind.CONCERN or entry.title in _WORRYING
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{self.about}.{rollout}.{entry.revision}"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "namespace": self.api.namespace,
                "name": self.about,
            },
            "reason": f"Rollout{entry.kind.value.capitalize()}",
            "message": f"{entry.title}: {entry.detail}"[:_LONGEST],
            "type": "Warning" if worrying else "Normal",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
        }
        try:
            self.api.create(f"/api/v1/namespaces/{self.api.namespace}/events", body)
        except ClusterError as error:
            if error.status != 409:
                raise
        return True
