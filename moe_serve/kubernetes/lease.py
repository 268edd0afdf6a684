"""Who leads: a Lease, taken over only after nobody renewed it for its whole length.

Its times are never compared with our clock: what counts is how long we ourselves saw it unchanged.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moe_serve.kubernetes.api import Api, ClusterError

SECONDS = 30


@dataclass(slots=True)
class Leadership:
    """One Lease; `clock` is monotonic, in seconds."""

    api: Api
    name: str
    me: str
    clock: Callable[[], float]
    _seen: tuple[str, float] = ("", 0.0)
    _renewed: float | None = None

    def take(self) -> bool:
        """Renew it, or take it if it is free: do we lead?

        Raises:
            ClusterError: the API server does not answer, or forbids it.
        """
        now = self.clock()
        try:
            found = self.api.get(self._path)
        except ClusterError as error:
            if error.status != 404:
                raise
            return self._wrote(now, lambda: self.api.create(self._parent, self._body({})))
        version = found["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, now)
        holder = found["spec"].get("holderIdentity") or ""
        expired = now - self._seen[1] > SECONDS
        if holder not in ("", self.me) and not expired:
            self._renewed = None
            return False
        return self._wrote(now, lambda: self.api.replace(self._path, self._body(found)))

    @property
    def holds(self) -> bool:
        """We lead, and nobody can have taken over meanwhile; asked right before each write."""
        return self._renewed is not None and self.clock() - self._renewed < SECONDS * 2 / 3

    def release(self) -> None:
        """Let another take over at once.

        Raises:
            ClusterError: the API server does not answer.
        """
        if not self.holds:
            return
        found = self.api.get(self._path)
        body = self._body(found)
        body["spec"]["holderIdentity"] = ""
        self._renewed = None
        self.api.replace(self._path, body)

    def _wrote(self, now: float, write: Callable[[], dict[str, Any]]) -> bool:
        try:
            written = write()
        except ClusterError as error:
            if error.status != 409:
                raise
            self._renewed = None
            return False
        self._seen, self._renewed = (written["metadata"]["resourceVersion"], now), now
        return True

    def _body(self, found: dict[str, Any]) -> dict[str, Any]:
        old = found.get("spec", {})
        changed = old.get("holderIdentity") != self.me
        time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        metadata = {"name": self.name}
        if found:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.me,
                "leaseDurationSeconds": SECONDS,
                "acquireTime": time if changed else old.get("acquireTime", time),
                "renewTime": time,
                "leaseTransitions": old.get("leaseTransitions", 0) + int(changed),
            },
        }

    @property
    def _parent(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.api.namespace}/leases"

    @property
    def _path(self) -> str:
        return f"{self._parent}/{self.name}"
