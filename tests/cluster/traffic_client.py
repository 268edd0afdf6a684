"""Runs inside a pod, with Python's own library alone: requests against a server, told as JSON.

python3 traffic_client.py streams HOST:PORT MODEL THREADS TOKENS SECONDS END
python3 traffic_client.py requests HOST:PORT MODEL THREADS TOKENS SECONDS END

`streams`: every thread streams, one after the other, until the server takes no more or the time
is over; a stream that has begun is read to its end. `requests`: every thread asks a few times at
the full 4 seconds, half of them on a connection that they keep. A file END ends it before its time.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

KIND, WHERE, MODEL = sys.argv[1:4]
THREADS, TOKENS, SECONDS = (int(each) for each in sys.argv[4:7])
UNTIL, END = time.time() + SECONDS, Path(sys.argv[7])
AT_ONCE = 5
told: list[dict[str, Any]] = []


def body(stream: bool) -> str:
    asked = {
        "model": MODEL, "prompt": "12+3=", "max_tokens": TOKENS, "temperature": 0,
        "ignore_eos": True, "stream": stream,
    }  # fmt: skip
    if stream:
        asked["stream_options"] = {"include_usage": True}
    return json.dumps(asked)


def ask(connection: http.client.HTTPConnection, stream: bool) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", body(stream), headers)
    return connection.getresponse()


def note(seen: dict[str, Any], data: bytes) -> None:
    """One event of a stream."""
    if data == b"[DONE]":
        seen["done"] = True
        return
    event = json.loads(data)
    if "error" in event:
        seen["error"] = str(event["error"])[:200]
    if event.get("usage"):
        seen["tokens"] = event["usage"]["completion_tokens"]
    for choice in event.get("choices", []):
        seen["last"] = time.time()
        seen["first"] = seen["first"] or seen["last"]
        seen["chunks"] += 1
        seen["finish"] = choice.get("finish_reason") or seen["finish"]


def one_stream() -> dict[str, Any]:
    """A stream from its beginning to its end; `chunks` counts events with text."""
    seen: dict[str, Any] = {
        "started": time.time(), "first": None, "last": None, "chunks": 0, "finish": None,
        "tokens": None, "done": False, "error": None,
    }  # fmt: skip
    connection = http.client.HTTPConnection(WHERE, timeout=120)
    try:
        answer = ask(connection, stream=True)
        if answer.status != 200:
            seen["error"] = f"status {answer.status}"
            return seen
        for line in answer:
            if line.startswith(b"data: "):
                note(seen, line[6:].strip())
    except (OSError, http.client.HTTPException, ValueError) as error:
        seen["error"] = f"{type(error).__name__}: {error}"[:200]
    finally:
        seen["ended"] = time.time()
        connection.close()
    return seen


def goes_on() -> bool:
    return time.time() < UNTIL and not END.exists()


def streams() -> None:
    while goes_on():
        seen = one_stream()
        told.append(seen)
        if seen["error"] and seen["first"] is None:
            return  # it takes no more


def requests(keep: bool) -> None:
    connection = http.client.HTTPConnection(WHERE, timeout=120)
    fresh = True
    asked = 0
    while goes_on():
        # A worker spins for a second after each step, which takes the CPU from pods that start: so
        # all ask together, and leave it alone in between.
        if asked % AT_ONCE == 0:
            time.sleep(4 - time.time() % 4)
        asked += 1
        started = time.time()
        answer = None
        try:
            answer = ask(connection, stream=False)
            text = answer.read()
            good = answer.status == 200 and json.loads(text)["usage"]["completion_tokens"] == TOKENS
            told.append(
                {"started": started, "error": None if good else f"{answer.status} {text[:200]!r}"}
            )
            fresh = False
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            connection.close()
            # A server may close a kept connection at any time between two answers: every client
            # asks again then, on a new one. A new connection has no such excuse, nor has half an
            # answer, nor silence.
            closed = answer is None and not isinstance(error, TimeoutError)
            if closed and not fresh:
                fresh = True
                continue
            fresh = True
            told.append({"started": started, "error": f"{type(error).__name__}: {error}"})
        if not keep:
            connection.close()
            fresh = True


def main() -> None:
    work = [
        threading.Thread(target=streams)
        if KIND == "streams"
        else threading.Thread(target=requests, args=(number % 2 == 0,))
        for number in range(THREADS)
    ]
    for each in work:
        each.start()
    for each in work:
        each.join()
    sys.stdout.write(json.dumps(told))


main()
