"""The demo's closed loop, against a simulated server."""

import asyncio
import contextlib
import json

from moe_serve_demo.load import DemoLoad

ANSWER = json.dumps({"usage": {"completion_tokens": 4}}).encode()


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One answer with the connection left open; the next request on it finds it closed."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    await reader.readexactly(length)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
    await writer.drain()
    await reader.read(1)
    writer.close()


async def loaded() -> tuple[int, ...]:
    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        urls = (f"http://127.0.0.1:{port}",) * 2
        load = DemoLoad(urls=urls, prompts=((5, 6, 7),))
        running = asyncio.create_task(load.run())
        while not running.done() and min(arm.requests for arm in load.progress) < 20:
            await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return tuple(arm.requests for arm in load.progress)


def test_load_on_servers_that_close_idle_connections_goes_on() -> None:
    assert min(asyncio.run(loaded())) >= 20
