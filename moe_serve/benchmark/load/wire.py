"""A POST whose answer is read as it comes, over a connection of its own.

HTTP libraries spend a tenth of a millisecond on every chunk. That is too much here: a fast server
sends thousands a second, and a client that uses up its core measures itself.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

_CONNECT_SECONDS = 10
_LONGEST_LINE = 2**20


class WireError(Exception):
    """The server left, or what it says is not HTTP/1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status, and the body still to come."""

    status: int
    chunked: bool
    length: int | None
    reader: asyncio.StreamReader

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body, block by block as it arrives.

        Raises:
            WireError: it ends before its end.
        """
        try:
            if self.chunked:
                while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    yield (await self.reader.readexactly(size + 2))[:size]
            elif self.length is not None:
                yield await self.reader.readexactly(self.length)
            else:
                while block := await self.reader.read(_LONGEST_LINE):
                    yield block
        except asyncio.IncompleteReadError as error:
            raise WireError("the answer was cut off") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise WireError("the answer is not HTTP/1.1") from error


@asynccontextmanager
async def post(
    url: str, path: str, headers: Mapping[str, str], body: bytes
) -> AsyncIterator[Reply]:
    """Send a body; the connection is closed when the block is left.

    Raises:
        OSError: no connection (`TimeoutError` among them).
        WireError: no HTTP/1.1 answer.
    """
    parts = urlsplit(url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            parts.hostname, port, ssl=tls, limit=_LONGEST_LINE
        )
    try:
        lines = [f"POST {parts.path.rstrip('/')}{path} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["connection: close", f"content-length: {len(body)}"]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        yield await _head(reader)
    finally:
        # Nothing is left to be said; waiting for the other side would cost the next request time.
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> Reply:
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        fields = dict(line.lower().split(":", 1) for line in lines if ":" in line)
        length = fields.get("content-length")
        return Reply(
            status=status,
            chunked="chunked" in fields.get("transfer-encoding", ""),
            length=None if length is None else int(length),
            reader=reader,
        )
    except asyncio.IncompleteReadError as error:
        raise WireError("the server left without an answer") from error
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise WireError("the answer is not HTTP/1.1") from error
