"""A closed loop of streamed completions on one server, with the times of every request."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

from moe_serve.benchmark.load.wire import WireError, post
from moe_serve.errors import BenchError

# A busy server may take long to list its models; connecting to it is quick.
_MODELS_TIMEOUT = httpx.Timeout(120, connect=10)
_REQUEST_SECONDS = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request's times in seconds: whole, to the first chunk, and between its chunks."""

    latency: float
    first: float
    gaps: tuple[float, ...]
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request without a complete answer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTiming:
    """One run: start (epoch seconds), wall seconds, the client's processor seconds, requests."""

    started: float
    seconds: float
    client_seconds: float
    answered: tuple[Answered, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server's address and its API key, which is sent in a header and never shown."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        key = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}
        return {"content-type": "application/json", **key}

    async def models(self) -> dict[str, int | None]:
        """The served models and the longest context in tokens of each, None if not stated.

        Raises:
            BenchError: the server does not answer, or its answer is no list of models.
        """
        try:
            # `trust_env=False`: no proxy, as for the streams.
            async with httpx.AsyncClient(timeout=_MODELS_TIMEOUT, trust_env=False) as client:
                reply = await client.get(f"{self.url}/v1/models", headers=self.headers())
            reply.raise_for_status()
            found = {one["id"]: one.get("max_model_len") for one in reply.json()["data"]}
        except httpx.HTTPStatusError as error:
            raise BenchError(
                f"{self.url}/v1/models: HTTP {error.response.status_code}; is the address right, "
                "and --api-key-file?"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BenchError(f"{self.url}: {_named(error)}; is the server up?") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(f"{self.url}/v1/models: not an OpenAI-compatible answer") from error
        return found


async def measure(endpoint: Endpoint, bodies: Sequence[bytes], concurrency: int) -> RequestTiming:
    """Send all bodies with `concurrency` requests in flight; returns when all have ended."""
    results: list[Answered | Refused] = []
    left = iter(bodies)
    wall, started, busy = time.time(), time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(bodies))):
            group.create_task(_slot(endpoint, left, results))
    seconds, spent = time.perf_counter() - started, time.process_time() - busy
    return RequestTiming(
        started=wall,
        seconds=seconds,
        client_seconds=spent,
        answered=tuple(one for one in results if isinstance(one, Answered)),
        refused=tuple(one for one in results if isinstance(one, Refused)),
    )


async def _slot(
    endpoint: Endpoint, left: Iterator[bytes], results: list[Answered | Refused]
) -> None:
    for body in left:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                results.append(await _ask(endpoint, body))
        except (OSError, WireError) as error:
            results.append(Refused(reason=_named(error)))
        except (ValueError, KeyError, TypeError, AttributeError):
            results.append(Refused(reason="the stream is not that of a completion"))


async def _ask(endpoint: Endpoint, body: bytes) -> Answered | Refused:
    began = time.perf_counter()
    async with post(endpoint.url, "/v1/completions", endpoint.headers(), body) as reply:
        if reply.status != 200:
            text = b"".join([block async for block in reply.blocks()])
            detail = " ".join(text.decode("utf-8", "replace").split())
            return Refused(reason=f"HTTP {reply.status}: {detail[:300]}")
        times: list[float] = []
        usage: Mapping[str, Any] | None = None
        rest = b""
        async for block in reply.blocks():
            now = time.perf_counter()
            *lines, rest = (rest + block).split(b"\n")
            for event in filter(None, map(_event, lines)):
                if "error" in event:
                    return Refused(reason=f"in the stream: {str(event['error'])[:300]}")
                if event.get("choices"):
                    times.append(now)
                usage = event.get("usage") or usage
    if usage is None or not times:
        return Refused(reason="the stream ended without `usage`, so its tokens are not counted")
    return Answered(
        latency=times[-1] - began,
        first=times[0] - began,
        gaps=tuple(later - earlier for earlier, later in pairwise(times)),
        input_tokens=int(usage["prompt_tokens"]),
        output_tokens=int(usage["completion_tokens"]),
    )


def _event(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a `data:` line; None for other lines and for `[DONE]`."""
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return None
    event = json.loads(data.decode())
    if not isinstance(event, dict):
        raise TypeError("an event is no object")
    return event


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
