"""What an arm's exporter tells the probe: whose answers these are, and what its traffic is like."""

from array import array
from dataclasses import dataclass

import httpx

from moe_serve.analysis.series import OVERFLOW
from moe_serve.errors import ProbeError, SourceError, UsageError
from moe_serve.metrics.labels import UNKNOWN, WORKER_CONFIG_DIGEST
from moe_serve.probe.together import together
from moe_serve.sources.addresses import address_fault, without_secrets
from moe_serve.sources.facts import facts
from moe_serve.sources.names import INFOS
from moe_serve.sources.streams import Stream, parse_key, samples
from moe_serve.sources.traffic import busy_by_batch

# Behind one address may be several pods, and each connection finds one of them. Of two pods that
# share the connections evenly, both are met in all but 1 of 128 readings.
_READINGS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The batch size with the most busy time, and its share of all time of batches without prefill,
    since the server began.
    """

    exporter: str
    batch: int
    busy_share: float

    def to_json(self) -> dict[str, object]:
        """All figures by name."""
        return {"exporter": self.exporter, "batch": self.batch, "busy_share": self.busy_share}


class ExporterClient:
    """A moe-serve exporter, by its address with or without `/metrics`; `name` is the flag."""

    def __init__(self, name: str, url: str, *, timeout: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{name}: as http://HOST:9400/metrics, with http:// or https://")
        try:
            # A password in it is used, and never told.
            without_secrets(url)
        except SourceError as error:
            raise UsageError(f"{name}: {error}") from error
        if fault := address_fault(url):
            raise UsageError(f"{name}: no request can be sent to its address: {fault}")
        asked = httpx.URL(url)
        self._asked = asked if asked.path != "/" else asked.copy_with(path="/metrics")
        self.url = without_secrets(str(self._asked))
        self._name, self._timeout = f"{name} {self.url}", timeout

    async def facts(self) -> dict[str, str]:
        """What the pods behind it say of their configuration, as the judge reads it.

        Raises:
            ProbeError: it does not answer.
            UsageError: it is no exporter, tells no configuration, or more than one.
        """
        async with self._connections() as client:
            readings = await together(self._read(client) for _ in range(_READINGS))
        first, *others = [facts([reading]) for reading in readings]
        for other in others:
            for name in {**first, **other}:
                if first.get(name) == other.get(name):
                    continue
                raise UsageError(
                    f"{self._name}: {name} is once {first.get(name, UNKNOWN)}, once "
                    f"{other.get(name, UNKNOWN)}: there are pods behind it that are not alike; "
                    "name one pod's"
                )
        digest = first[WORKER_CONFIG_DIGEST]
        if digest == UNKNOWN:
            raise UsageError(
                f"{self._name}: has no {WORKER_CONFIG_DIGEST}: no worker has written a whole "
                "proof; probe a pod whose worker is up"
            )
        if " | " in digest:
            raise UsageError(
                f"{self._name}: {WORKER_CONFIG_DIGEST} is {digest}: its workers are not alike"
            )
        return first

    async def traffic(self) -> Traffic:
        """What the pod behind it is busy with.

        Raises:
            ProbeError: it does not answer.
            UsageError: it is no exporter, or its traffic has no batch size.
        """
        async with self._connections() as client:
            busy = busy_by_batch(await self._read(client))
        if not busy:
            raise UsageError(
                f"{self._name}: has timed no batch without prefill, so traffic has no size; ask a "
                "pod that serves, or leave `traffic` out"
            )
        batch = max(busy, key=lambda size: (busy[size], -size))
        if batch == OVERFLOW:
            raise UsageError(
                f"{self._name}: is busiest with batches that are too large to have a size; leave "
                "`traffic` out"
            )
        share = round(busy[batch] / sum(busy.values()), 3)
        return Traffic(exporter=self.url, batch=batch, busy_share=share)

    def _connections(self) -> httpx.AsyncClient:
        # None is kept: each reading has one of its own.
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(timeout=self._timeout, limits=limits, trust_env=False)

    async def _read(self, client: httpx.AsyncClient) -> list[Stream]:
        try:
            answer = await client.get(self._asked)
        except httpx.HTTPError as error:
            told = str(error) or type(error).__name__
            raise ProbeError(f"{self._name}: no answer ({told})") from error
        if not answer.is_success:
            raise UsageError(
                f"{self._name}: HTTP {answer.status_code}; an exporter's is http://HOST:9400/metrics"
            )
        try:
            found = [_stream(key, value) for key, value in samples(answer.text)]
        except SourceError as error:
            raise UsageError(f"{self._name}: not an exporter's metrics: {error}") from error
        # Without a worker an exporter has no info of one; it still has its own.
        if not any(stream.name in INFOS for stream in found):
            raise UsageError(
                f"{self._name}: tells of no moe-serve worker: no exporter's (port 9400), or none "
                "is up"
            )
        return found


def _stream(key: str, value: float) -> Stream:
    name, labels = parse_key(key)
    return Stream(name, labels, array("d", [0.0]), array("d", [value]))
