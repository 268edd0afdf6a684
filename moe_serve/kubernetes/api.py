"""Kubernetes' API as paths and JSON, with errors in one stable line each.

Paths instead of the client's typed classes: HTTPRoutes have none, and a state machine wants to see
exactly what is there. The client brings authentication, TLS and the kubeconfig.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kubernetes import client, config
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from moe_serve.errors import RolloutError, UsageError

Json = dict[str, Any]
_CONNECT_SECONDS, _READ_SECONDS = 3.0, 10.0
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Patch(StrEnum):
    """How a body is merged into an object."""

    APPLY = "application/apply-patch+yaml"
    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"


class ClusterError(RolloutError):
    """What the API server said; `status` is None where it did not answer."""

    def __init__(self, message: str, *, status: int | None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Api:
    """One API server, one namespace."""

    calls: Any  # kubernetes.client.ApiClient, which has no types
    namespace: str

    def get(self, path: str, **query: str) -> Json:
        """One object, or a list of some."""
        return self._json("GET", path, None, query)

    def create(self, path: str, body: Json, **query: str) -> Json:
        """Make an object."""
        return self._json("POST", path, body, query)

    def replace(self, path: str, body: Json) -> Json:
        """Put an object in the place of one of the same resource version."""
        return self._json("PUT", path, body, {})

    def patch(self, path: str, body: object, how: Patch, **query: str) -> Json:
        """Change an object."""
        return self._json("PATCH", path, body, query, how.value)

    def watch(self, path: str, seconds: int, **query: str) -> Iterator[Json]:
        """Changes as they happen, until the server ends the stream; a refusal comes at once."""
        query = {**query, "watch": "true", "timeoutSeconds": str(seconds)}
        return _changes(
            self._send("GET", path, None, query, None, (_CONNECT_SECONDS, seconds + 5.0))
        )

    def _json(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        kind: str | None = None,
    ) -> Json:
        limits = (_CONNECT_SECONDS, _READ_SECONDS)
        response = self._send(method, path, body, query, kind, limits)
        try:
            found: Json = json.loads(response.data)
        except ValueError as error:
            raise ClusterError(f"{method} {path}: no JSON came back", status=None) from error
        return found

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str],
        kind: str | None,
        limits: tuple[float, float],
    ) -> Any:
        text = None if body is None else json.dumps(body, separators=(",", ":"))
        headers = {"Accept": "application/json", "User-Agent": "moe-serve-canary"}
        if text is not None:
            headers["Content-Type"] = kind or "application/json"
        settings = self.calls.configuration
        for known in settings.auth_settings().values():
            headers[known["key"]] = known["value"]
        try:
            response = self.calls.rest_client.pool_manager.request(
                method,
                settings.host + path + ("?" + urlencode(query) if query else ""),
                body=text,
                headers=headers,
                timeout=Timeout(connect=limits[0], read=limits[1]),
                preload_content=False,
                retries=False,
            )
            if response.status >= 400:
                raise _refused(method, path, response.status, response.data)
        except HTTPError as error:
            raise ClusterError(_unreachable(error), status=None) from error
        return response


def connect(
    namespace: str | None, context: str | None = None, kubeconfig: str | None = None
) -> Api:
    """From within a pod, or by a kubeconfig (KUBECONFIG if none is named).

    Raises:
        UsageError: there is neither.
    """
    settings = client.Configuration()
    try:
        if _NAMESPACE.exists() and context is None and kubeconfig is None:
            config.load_incluster_config(client_configuration=settings)
            found = namespace or _NAMESPACE.read_text("utf-8").strip()
        else:
            config.load_kube_config(kubeconfig, context, client_configuration=settings)
            known, active = config.list_kube_config_contexts(kubeconfig)
            named = next((one for one in known if one["name"] == context), active)
            found = namespace or named["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"no cluster: {text}; run it in a pod, or set KUBECONFIG") from error
    return Api(client.ApiClient(settings), found)


def _changes(response: Any) -> Iterator[Json]:
    rest = b""
    try:
        for chunk in response.stream(65536, decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines if line)
    except HTTPError as error:
        raise ClusterError(_unreachable(error), status=None) from error
    finally:
        response.close()


def _refused(method: str, path: str, status: int, data: bytes) -> ClusterError:
    try:
        said = json.loads(data).get("message", "")
    except (ValueError, AttributeError):
        said = data[:200].decode("utf-8", "replace")
    text = " ".join(str(said).split())
    if status == 403:
        text = f"{text} (docs/rollout.md lists what its Role must allow)"
    return ClusterError(f"{method} {path}: {status} {text}", status=status)


def _unreachable(error: HTTPError) -> str:
    return f"the API server does not answer ({type(error).__name__})"
