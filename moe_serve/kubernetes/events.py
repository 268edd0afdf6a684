"""The rollout's history as Kubernetes Events: each once, however often it is told."""

import datetime
import hashlib
from dataclasses import dataclass

from moe_serve.kubernetes.api import Api, ClusterError, Json
from moe_serve.kubernetes.body import MANAGER
from moe_serve.rollout.state import Entry, EntryKind

_WORRYING = ("held", "rollback")
_LONGEST = 1000
_FAULT = "RolloutFault"
_SAME_SECONDS = 600


@dataclass(slots=True)
class Events:
    """Events about one rollout's ConfigMap."""

    api: Api
    about: str
    name: str = "events"

    def notify(self, rollout: str, entry: Entry) -> bool:
        """Write one Event; its name is the revision's, so that a second is the same one.

        Raises:
            ClusterError: it could not be written.
        """
        time = datetime.datetime.fromtimestamp(entry.at, datetime.UTC)
        body = self._body(
            {"name": f"{self.about}.{rollout}.{entry.revision}"},
            f"Rollout{entry.kind.value.capitalize()}",
            f"{entry.title}: {entry.detail}",
            time,
        )
        if entry.kind is not EntryKind.PENDING_HOLD and entry.title not in _WORRYING:
            body["type"] = "Normal"
        self._create(body)
        return True

    def warn(self, text: str, at: float) -> None:
        """Write an Event that is of no revision: without its state a rollout has none.

        Of several controllers that say the same within some minutes it is one.

        Raises:
            ClusterError: it could not be written.
        """
        said = hashlib.sha256(f"{text} {at // _SAME_SECONDS}".encode()).hexdigest()[:10]
        time = datetime.datetime.fromtimestamp(at, datetime.UTC)
        self._create(self._body({"name": f"{self.about}.{said}"}, _FAULT, text, time))

    def last_fault(self) -> str:
        """When and what `warn` told last; empty if Kubernetes keeps none (an hour, by default).

        Raises:
            ClusterError: Events cannot be listed.
        """
        about = f"involvedObject.name={self.about},reason={_FAULT}"
        found = self.api.get(self._path, fieldSelector=about)["items"]
        notified = max(((one["lastTimestamp"], one["message"]) for one in found), default=None)
        return ": ".join(notified) if notified else ""

    def _create(self, body: Json) -> None:
        try:
            self.api.create(self._path, body)
        except ClusterError as error:
            if error.status != 409:
                raise

    def _body(self, metadata: Json, reason: str, message: str, time: datetime.datetime) -> Json:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "namespace": self.api.namespace,
                "name": self.about,
            },
            "reason": reason,
            "message": message[:_LONGEST],
            "type": "Warning",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
        }

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.api.namespace}/events"
