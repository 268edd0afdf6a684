"""One server with vLLM's OpenAI-compatible API."""

import asyncio
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from moe_serve.errors import ProbeError, UsageError
from moe_serve.probe.exporter import ExporterClient
from moe_serve.quality.divergence import Position, Text
from moe_serve.sources.addresses import address_fault

_RESET_SECONDS = 0.5


class ProbedServer:
    """An arm, or the gold; a context manager over its connections.

    `facts` are what its exporter says of its configuration; None where no exporter was named. Every
    request carries a cache salt of its own, so that no prefix cache answers for a kernel.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        top: int,
        exporter: ExporterClient | None = None,
        timeout: float = 300.0,
    ) -> None:
        self.name, self.url, self.top, self.exporter = name, url.rstrip("/"), top, exporter
        self.facts: Mapping[str, str] | None = None
        self.model = ""
        self.context = 0
        # A probe at concurrency 64 needs as many connections.
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def __aenter__(self) -> "ProbedServer":
        """Learn the served model's name, and the configuration that its exporter tells.

        Raises:
            ProbeError: the server or its exporter does not answer.
            UsageError: the address is none, or is not an OpenAI-compatible server's; or the
                exporter's is none, or tells no one configuration.
        """
        try:
            await self._learn()
        except BaseException:
            await self._client.aclose()
            raise
        return self

    async def _learn(self) -> None:
        if fault := address_fault(self.url):
            raise UsageError(f"{self.name} {self.url}: no request can be sent there: {fault}")
        try:
            answer = await self._client.get(f"{self.url}/v1/models")
            found = answer.raise_for_status().json()["data"][0]
            self.model, self.context = str(found["id"]), int(found.get("max_model_len") or 0)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.HTTPStatusError) as error:
            raise UsageError(f"{self.name} {self.url}: {error}".splitlines()[0]) from error
        except httpx.HTTPError as error:
            raise ProbeError(f"{self.name} {self.url}: no answer ({_told(error)})") from error
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{self.name} {self.url}/v1/models: not a list of models") from error
        self.facts = await self.exporter.facts() if self.exporter else None

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def unchanged(self) -> None:
        """Ask the exporter again.

        Raises:
            ProbeError: the exporter does not answer.
            UsageError: the server is not what it was when the probe began.
        """
        if self.exporter is None or self.facts is None:
            return
        now = await self.exporter.facts()
        for name in {**self.facts, **now}:
            if now.get(name) != self.facts.get(name):
                raise UsageError(
                    f"{self.name} {self.url}: {name} was {self.facts.get(name)} when the probe "
                    f"began and is {now.get(name)}; probe again once it stays as it is"
                )

    async def score(self, prompt: Sequence[int], text: Text) -> Text | None:
        """The text's tokens as this server rates them after the prompt; None: no answer."""
        tokens = [*prompt, *(position.token for position in text)]
        choice = await self._complete(
            {"prompt": tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": self.top}
        )
        if choice is None:
            return None
        given = choice["prompt_logprobs"][len(prompt) :]
        wanted = tokens[len(prompt) :]
        return tuple(self._scored(at, token) for at, token in zip(given, wanted, strict=True))

    def _scored(self, at: Mapping[str, Mapping[str, Any]], token: int) -> Position:
        values = {int(name): (_number(f["logprob"]), int(f["rank"])) for name, f in at.items()}
        # The token itself stands among them even where it is not one of the best.
        top = {name: value for name, (value, rank) in values.items() if rank <= self.top}
        return Position(token, values[token][0], top)

    async def write(
        self, prompt: Sequence[int], *, tokens: int, seed: int | None = None
    ) -> Text | None:
        """The server's own continuation: greedy, or sampled at temperature 1 with `seed`."""
        sampling = {"temperature": 0} if seed is None else {"temperature": 1, "seed": seed}
        choice = await self._complete(
            {
                "prompt": list(prompt),
                "max_tokens": tokens,
                "logprobs": self.top,
                "return_token_ids": True,
                "return_tokens_as_token_ids": True,
                **sampling,
            }
        )
        if choice is None:
            return None
        found = choice["logprobs"]
        columns = choice["token_ids"], found["token_logprobs"], found["top_logprobs"]
        return tuple(self._written(*row) for row in zip(*columns, strict=True))

    def _written(self, token: int, logprob: float | None, best: Mapping[str, Any]) -> Position:
        values = {int(name.removeprefix("token_id:")): _number(v) for name, v in best.items()}
        top = dict(sorted(values.items(), key=lambda pair: -pair[1])[: self.top])
        return Position(token, _number(logprob), top)

    async def answer(self, prompt: str, *, tokens: int, chat: bool) -> str | None:
        """The greedy answer to one question, as text; None: no answer."""
        body: dict[str, object] = {"max_tokens": tokens, "temperature": 0}
        if not chat:
            choice = await self._complete({"prompt": prompt, **body})
            return None if choice is None else str(choice["text"])
        messages = [{"role": "user", "content": prompt}]
        choice = await self._choice("chat/completions", {"messages": messages, **body})
        return None if choice is None else str(choice["message"].get("content") or "")

    async def tokens(self, prompt: str, *, chat: bool) -> list[int]:
        """Token ids of a prompt; in the model's chat format with `chat`.

        Raises:
            ProbeError: the server cannot tell.
        """
        asked: dict[str, object] = (
            {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        )
        found = await self._post("tokenize", asked)
        if found is None:
            raise ProbeError(f"{self.name} {self.url}/tokenize: no answer")
        return [int(token) for token in found["tokens"]]

    async def metrics(self) -> str:
        """The text of `/metrics`; empty where there is none."""
        try:
            answer = await self._client.get(f"{self.url}/metrics")
        except httpx.HTTPError:
            return ""
        return answer.text if answer.is_success else ""

    async def _complete(self, body: Mapping[str, object]) -> Mapping[str, Any] | None:
        return await self._choice("completions", body)

    async def _choice(self, what: str, body: Mapping[str, object]) -> Mapping[str, Any] | None:
        salt = {"cache_salt": secrets.token_hex(16)}
        found = await self._post(f"v1/{what}", {**body, **salt})
        return None if found is None else dict(found["choices"][0])

    async def _post(self, path: str, body: Mapping[str, object]) -> Mapping[str, Any] | None:
        """One request; once more where the connection broke before an answer.

        Raises:
            UsageError: the server refuses it, as it would every other of its kind.
        """
        for again in (True, False):
            try:
                answer = await self._client.post(
                    f"{self.url}/{path}", json={"model": self.model, **body}
                )
            except httpx.TransportError as error:
                if again and not isinstance(error, httpx.TimeoutException):
                    await asyncio.sleep(_RESET_SECONDS)
                    continue
                return None
            if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
                raise UsageError(f"{self.name} {self.url}/{path}: {_refusal(answer)}")
            try:
                return dict(answer.json()) if answer.is_success else None
            except ValueError:
                return None
        return None


def _number(value: float | None) -> float:
    # JSON has no NaN: servers write null.
    return math.nan if value is None else float(value)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refusal(answer: httpx.Response) -> str:
    try:
        told = str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        told = answer.text
    return f"HTTP {answer.status_code}: {' '.join(told.split())[:200]}"
