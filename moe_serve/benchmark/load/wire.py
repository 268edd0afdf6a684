"""An HTTP/1.1 POST over one connection, whose answer is read block by block.

HTTP libraries spend 0.1 ms per chunk. A fast server sends thousands of chunks per second, so with
one of them the client would use up its core and limit the rate that it measures.
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
    """The server closed the connection early, or its answer is not HTTP/1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer's status; `blocks` reads its body."""

    status: int
    chunked: bool
    length: int | None
    reader: asyncio.StreamReader

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body, block by block as it arrives.

        Raises:
            WireError: the body is cut off or malformed.
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
    """Send a body and yield the answer; the connection is closed when the block is left.

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
        # Not closed politely: waiting for the server would delay the next request.
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
        raise WireError("the server closed the connection without an answer") from error
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise WireError("the answer is not HTTP/1.1") from error
