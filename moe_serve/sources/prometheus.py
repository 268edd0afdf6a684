"""A Prometheus server's HTTP API: raw samples, never rates."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from moe_serve.analysis.history import History
from moe_serve.errors import SourceError
from moe_serve.sources.addresses import without_secrets
from moe_serve.sources.assemble import ArmSelector, QuerySource, assemble
from moe_serve.sources.names import NAMES
from moe_serve.sources.streams import Streams, append

# Samples a query are bounded on most servers; an hour of a large fleet stays below that.
_CHUNK_SECONDS = 3600.0
_ATTEMPTS = 3
_BACK_OFF_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A server and how to reach it; `selector` narrows the series, as `namespace="llm"`.

    Secrets are read from files when asked, and appear in no message.
    """

    url: str
    arms: ArmSelector = field(default_factory=ArmSelector)
    selector: str = ""
    bearer_token_file: Path | None = None
    basic_auth_file: Path | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 20.0
    pause: Callable[[float], None] = time.sleep

    def history(self, start: float, end: float) -> History:
        """Both arms between two times, seconds since the epoch.

        Raises:
            SourceError: the server does not answer, refuses, or has none of the arms.
        """
        streams = Streams()
        with self._client() as client:
            for first, last in _chunks(start, end):
                found = self._query(client, first, last)
                try:
                    for series in found:
                        _add(streams, series)
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    raise self._foreign() from error
        origin = f"Prometheus {self._shown()}"
        query_source = QuerySource(source=origin, build_query=self._words)
        return assemble(streams, self.arms, start, end, origin, query_source)

    def _words(self, names: Sequence[str], start: float, end: float) -> str:
        """For its query page: the modifier `@` fixes the moment, whenever it is pasted."""
        return f"{self._range(names, start, end)} @ {end:.3f}"

    def number(self, query: str) -> float | None:
        """What a query gives now: one number, or None if it gives no finite one.

        Raises:
            SourceError: the server does not answer, or refuses the query.
        """
        with self._client() as client:
            kind, found = self._result(self._ask(client, {"query": query}))
        try:
            values = [found] if kind == "scalar" else [series.get("value") for series in found]
            if len(values) != 1 or values[0] is None:
                return None
            value = float(values[0][1])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._foreign() from error
        return value if math.isfinite(value) else None

    def _client(self) -> httpx.Client:
        headers, auth = {}, None
        try:
            if self.bearer_token_file:
                token = self.bearer_token_file.read_text("utf-8").strip()
                # What no header can hold would come back in the library's own message.
                if not (token.isascii() and token.isprintable()):
                    raise SourceError(
                        f"--bearer-token-file {self.bearer_token_file}: not one line of ASCII"
                    )
                headers["Authorization"] = f"Bearer {token}"
            if self.basic_auth_file:
                user, _, password = self.basic_auth_file.read_text("utf-8").strip().partition(":")
                auth = httpx.BasicAuth(user, password)
            verify: Any = str(self.ca_file) if self.ca_file else True
            return httpx.Client(
                base_url=self.url.rstrip("/"),
                headers=headers,
                auth=auth,
                verify=verify,
                timeout=self.timeout_seconds,
                trust_env=False,
            )
        except UnicodeDecodeError as error:
            raise SourceError(
                f"Prometheus {self._shown()}: the file of its token or password is not UTF-8 text"
            ) from error
        except (OSError, httpx.InvalidURL) as error:
            raise SourceError(f"Prometheus {self._shown()}: {error}") from error

    def _shown(self) -> str:
        """The address without what may be secret in it."""
        try:
            return without_secrets(self.url)
        except SourceError as error:
            raise SourceError(f"Prometheus {error}") from error

    def _query(self, client: httpx.Client, first: float, last: float) -> list[dict[str, Any]]:
        query = self._range(NAMES, first, last)
        body = self._ask(client, {"query": query, "time": f"{last:.3f}"})
        kind, found = self._result(body)
        return found if kind == "matrix" else []

    def _range(self, names: Sequence[str], first: float, last: float) -> str:
        parts = [
            f'__name__=~"{"|".join(names)}"',
            f'{self.arms.label}=~"{_quoted(self.arms.pattern)}"',
            *([self.selector] if self.selector else []),
        ]
        # A millisecond more: range selectors leave their left end out since Prometheus 3.
        return f"{{{','.join(parts)}}}[{math.ceil((last - first) * 1000) + 1}ms]"

    def _result(self, body: dict[str, Any]) -> tuple[str, list[Any]]:
        if body.get("status") != "success":
            raise SourceError(f"Prometheus {self._shown()}: {body.get('error', 'no success')}")
        data = body.get("data")
        if not isinstance(data, dict) or not isinstance(found := data.get("result"), list):
            raise self._foreign()
        return str(data.get("resultType")), found

    def _foreign(self) -> SourceError:
        return SourceError(
            f"Prometheus {self._shown()}: says success, with data of another form; is this its URL?"
        )

    def _ask(self, client: httpx.Client, parameters: dict[str, str]) -> dict[str, Any]:
        fault = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.pause(_BACK_OFF_SECONDS * 2 ** (attempt - 1))
            try:
                answer = client.post("/api/v1/query", data=parameters)
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {error}".rstrip(": ")
                continue
            if answer.status_code >= 500:
                fault = f"HTTP {answer.status_code}"
                continue
            return self._body(answer)
        raise SourceError(f"Prometheus {self._shown()}: {fault} ({_ATTEMPTS} attempts)")

    def _body(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            body = answer.json()
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"Prometheus {self._shown()}: HTTP {answer.status_code}, no JSON; is this its URL?"
            ) from error
        if not isinstance(body, dict):
            raise SourceError(f"Prometheus {self._shown()}: an answer of another form")
        return body


def _quoted(pattern: str) -> str:
    return pattern.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _chunks(start: float, end: float) -> Iterator[tuple[float, float]]:
    first = start
    while first < end:
        last = min(end, first + _CHUNK_SECONDS)
        yield first, last
        first = last


def _add(streams: Streams, series: dict[str, Any]) -> None:
    labels = dict(series["metric"])
    name = labels.pop("__name__")
    key = name + repr(sorted(labels.items()))
    stream = streams.stream(key) or streams.add(key, name, labels)
    for stamp, value in series["values"]:
        append(stream, float(stamp), float(value))
