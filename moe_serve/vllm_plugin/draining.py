"""A server that is about to stop asks its clients to come back on another connection.

A Service forgets a pod that is to stop, but a connection that a client keeps stays with it, and
vLLM answers 500 to what arrives there once it drains. So from the moment that MARK exists, every
answer closes its connection, and the client's next one leads to another pod. The pod's hook makes
the mark before it waits. For vLLM: `--middleware=moe_serve.vllm_plugin.draining.Draining`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

MARK = Path("/tmp/moe-serve-draining")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Draining:
    """ASGI middleware; a mark that an earlier server of this pod has left is removed."""

    def __init__(self, app: Application, mark: Path = MARK) -> None:
        self._app, self._mark = app, mark
        mark.unlink(missing_ok=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._mark.exists():
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, closing if scope["type"] == "http" else send)
