"""A rollout's state in a ConfigMap, written only over what was read; people write annotations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moe_serve.errors import RolloutError
from moe_serve.kubernetes.api import Api, ClusterError, Patch
from moe_serve.kubernetes.body import LABEL, MANAGER
from moe_serve.rollout.observation import HumanRequest
from moe_serve.rollout.ports import StoredRollout
from moe_serve.rollout.state import RolloutState
from moe_serve.rollout.state_json import from_json, to_json

APPROVE, ABORT = "moe-serve.io/approve", "moe-serve.io/abort"


@dataclass(slots=True)
class Store:
    """One ConfigMap."""

    api: Api
    name: str
    _version: str | None = None
    uid: str = ""

    def load(self) -> StoredRollout:
        """What is kept now; nothing if it is not there.

        Raises:
            RolloutError: it cannot be read.
        """
        try:
            found = self.api.get(self._path)
        except ClusterError as error:
            if error.status != 404:
                raise
            self._version = None
            return StoredRollout()
        self._remember(found)
        data = found.get("data") or {}
        try:
            state, notified = json.loads(data["state"]), json.loads(data["notified"])
        except (KeyError, ValueError) as error:
            raise RolloutError(
                f"ConfigMap {self.name} holds no state that can be read ({error!r}): restore it, "
                "or delete it to begin anew"
            ) from error
        notes = found["metadata"].get("annotations") or {}
        approve = notes.get(APPROVE, "")
        return StoredRollout(
            state=from_json(state),
            notified=notified,
            human_request=HumanRequest(
                approve=int(approve) if approve.isdecimal() else None, abort=notes.get(ABORT)
            ),
        )

    def save(self, state: RolloutState, notified: Mapping[str, int]) -> None:
        """Keep this in the place of what was loaded or saved last.

        Raises:
            ClusterError: it was not kept; 409 if somebody else wrote meanwhile.
        """
        data = {
            "state": json.dumps(to_json(state), sort_keys=True, allow_nan=False),
            "notified": json.dumps(dict(notified), sort_keys=True),
        }
        if self._version is None:
            labels = {LABEL: MANAGER, "app.kubernetes.io/part-of": "moe-serve"}
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self.name, "labels": labels},
                "data": data,
            }
            self._remember(self.api.create(self._parent, body, fieldManager=MANAGER))
            return
        patch = {"metadata": {"resourceVersion": self._version}, "data": data}
        self._remember(self.api.patch(self._path, patch, Patch.MERGE, fieldManager=MANAGER))

    def ask(self, key: str, value: str) -> None:
        """Leave a person's wish for the controller that leads.

        Raises:
            ClusterError: it could not be left.
        """
        self.api.patch(self._path, {"metadata": {"annotations": {key: value}}}, Patch.MERGE)

    def _remember(self, found: dict[str, Any]) -> None:
        self._version, self.uid = found["metadata"]["resourceVersion"], found["metadata"]["uid"]

    @property
    def _parent(self) -> str:
        return f"/api/v1/namespaces/{self.api.namespace}/configmaps"

    @property
    def _path(self) -> str:
        return f"{self._parent}/{self.name}"
