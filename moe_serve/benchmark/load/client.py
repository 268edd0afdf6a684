"""Streamed completions from one server, a fixed number at a time, each with its times."""

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

# To be connected is quick; a server, or a client, that is busy may take long to say its models.
_LOOK = httpx.Timeout(120, connect=10)
_REQUEST_SECONDS = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Times of one request, in seconds; `gaps` lie between two chunks of its stream."""

    latency: float
    first: float
    gaps: tuple[float, ...]
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request that got no whole answer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTiming:
    """One turn: wall seconds, the client's own processor seconds, and every request."""

    started: float
    seconds: float
    client_seconds: float
    answered: tuple[Answered, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server by its address; the key, if any, goes into a header and nowhere else."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        key = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}
        return {"content-type": "application/json", **key}

    async def models(self) -> dict[str, int | None]:
        """The served models, with the longest context that each takes.

        Raises:
            BenchError: no such server, or one that speaks another language.
        """
        try:
            # No proxy of the environment gets between: the streams know none either.
            async with httpx.AsyncClient(timeout=_LOOK, trust_env=False) as client:
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
    """Ask everything, `concurrency` requests in flight until none is left to begin."""
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
            results.append(Refused(reason="its stream is not that of a completion"))


async def _ask(endpoint: Endpoint, body: bytes) -> Answered | Refused:
    began = time.perf_counter()
    async with post(endpoint.url, "/v1/completions", endpoint.headers(), body) as reply:
        if reply.status != 200:
            text = b"".join([block async for block in reply.blocks()])
            told = " ".join(text.decode("utf-8", "replace").split())
            return Refused(reason=f"HTTP {reply.status}: {told[:300]}")
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
        return Refused(reason="its stream ended without usage: the server must count tokens")
    return Answered(
        latency=times[-1] - began,
        first=times[0] - began,
        gaps=tuple(later - earlier for earlier, later in pairwise(times)),
        input_tokens=int(usage["prompt_tokens"]),
        output_tokens=int(usage["completion_tokens"]),
    )


def _event(line: bytes) -> dict[str, Any] | None:
    """The JSON of a `data:` line; None for all other lines, and for the last one."""
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return None
    event = json.loads(data.decode())
    if not isinstance(event, dict):
        raise TypeError("an event is no object")
    return event


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
