"""A collection of objects kept in date by a watch, not by polling."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_serve.kubernetes.api import Api, ClusterError, Json

_LOG = logging.getLogger(__name__)
_STREAM_SECONDS, _PAUSE_SECONDS = 240, 2.0


@dataclass(slots=True)
class Watched:
    """Lists once, then follows; `on_change` is called from its own thread."""

    api: Api
    path: str
    query: Mapping[str, str]
    on_change: Callable[[], None]
    _objects: dict[str, Json] = field(default_factory=dict)
    _fault: str = "not listed yet"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def objects(self) -> tuple[Json, ...]:
        """All objects now.

        Raises:
            ClusterError: the collection is not known to be in date.
        """
        with self._lock:
            if self._fault:
                raise ClusterError(self._fault, status=None)
            return tuple(self._objects.values())

    def run(self, stop: threading.Event) -> None:
        """Follow until stopped; what fails is tried again."""
        try:
            self._run(stop)
        finally:
            # Nobody keeps the objects in date any more.
            with self._lock:
                self._fault = f"watch of {self.path}: its thread ended"

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.follow(stop)
            except ClusterError as error:
                self._failed(str(error))
                stop.wait(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - a thread that ended would look alive
                _LOG.exception("watch of %s", self.path)
                self._failed(f"watch of {self.path}: {type(error).__name__}")
                stop.wait(_PAUSE_SECONDS)

    def follow(self, stop: threading.Event) -> None:
        """List, then take changes until the server tires of it."""
        listed = self.api.get(self.path, **self.query)
        found = {item["metadata"]["uid"]: item for item in listed.get("items") or []}
        version = listed["metadata"]["resourceVersion"]
        changes = self._changes(version)
        # Only now: who may list and not watch would be in date every other second.
        self._keep(found)
        while not stop.is_set():
            started = time.monotonic()
            for change in changes:
                if change["type"] == "ERROR":
                    return  # 410: the version is too old, list again
                version = change["object"]["metadata"]["resourceVersion"]
                if change["type"] != "BOOKMARK":
                    self._take(change["type"], change["object"])
                if stop.is_set():
                    return
            if time.monotonic() - started < 1:
                return
            changes = self._changes(version)

    def _changes(self, version: str) -> Iterator[Json]:
        return self.api.watch(self.path, _STREAM_SECONDS, resourceVersion=version, **self.query)

    def _take(self, kind: str, item: Json) -> None:
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(item["metadata"]["uid"], None)
            else:
                self._objects[item["metadata"]["uid"]] = item
        self.on_change()

    def _keep(self, found: dict[str, Any]) -> None:
        with self._lock:
            changed = self._fault or found != self._objects
            self._objects, self._fault = found, ""
        if changed:
            self.on_change()

    def _failed(self, fault: str) -> None:
        with self._lock:
            changed, self._fault = fault != self._fault, fault
        if changed:
            self.on_change()
