"""HTTP requests that are bounded in time and size, for servers with a thread per connection."""

import io
import socket
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

REQUEST_SECONDS = 10.0
ANSWER_SECONDS = 10.0
REQUEST_BYTES = 16 * 1024


class BoundedRequests(BaseHTTPRequestHandler):
    """A handler whose thread is held for at most 20 s, however slowly a client sends or reads.

    A timeout of the socket alone bounds each read: a client that sends one byte at a time would
    hold the thread for as long as it likes. A request line with headers above 16 KiB gets 431.
    """

    def setup(self) -> None:
        """Read through a stream that ends at the bounds."""
        super().setup()
        self.rfile.close()
        self._bounds = _Bounded(self.connection)
        self.rfile = io.BufferedReader(self._bounds)

    def parse_request(self) -> bool:
        """Refuse what did not fit."""
        whole = super().parse_request()
        self.connection.settimeout(ANSWER_SECONDS)
        if whole and self._bounds.exceeded:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return False
        return whole


class _Bounded(io.RawIOBase):
    """A connection's bytes, until its time or its size is used up."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + REQUEST_SECONDS
        self._left = REQUEST_BYTES
        self.exceeded = False

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        if not self._left:
            self.exceeded = True
            return 0
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(seconds)
        view = memoryview(into)[: self._left]  # type: ignore[arg-type]  # any writable buffer
        count = self._connection.recv_into(view)
        self._left -= count
        return count
