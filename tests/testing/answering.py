"""A small HTTP server that answers as vLLM does, from a distribution that is known."""

import hashlib
import json
import math
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moe_serve.quality.counters import CORRUPTED, FINISHED

VOCABULARY = 12


@dataclass
class Behaviour:
    """`off` moves the logits; `fail` answers 500 to every n-th request; `broken` gives no numbers.
    `corrupts` counts every request as corrupted, as vLLM does; None: it has no metrics.

    `answer` is what it says to a question; None echoes the sum that the question asks for.
    `on_first` happens when it is first asked to complete something.
    """

    off: float = 0.0
    fail: int = 0
    broken: bool = False
    answer: str | None = None
    corrupts: bool | None = None
    on_first: Callable[[], None] | None = None
    salts: list[str] = field(default_factory=list)
    provenance: int = 0

    def logprobs(self, context: Sequence[int]) -> list[float]:
        text = ",".join(map(str, context[-3:]))
        source = random.Random(text)
        logits = [source.gauss(0, 2) for _ in range(VOCABULARY)]
        lost = random.Random(f"other {text}")
        logits = [logit + self.off * lost.gauss(0, 1) for logit in logits]
        total = math.log(sum(map(math.exp, logits)))
        return [logit - total for logit in logits]

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, top = body["prompt"], body.get("prompt_logprobs")
        if isinstance(prompt, str):
            return {"text": self._said(prompt)}
        if top is not None:
            given = [self._told(prompt[:at], prompt[at], top) for at in range(1, len(prompt))]
            return {"prompt_logprobs": [None, *given]}
        tokens: list[int] = []
        rows: list[tuple[float, dict[str, float]]] = []
        source = random.Random(body.get("seed"))
        for _ in range(body["max_tokens"]):
            values = self.logprobs([*prompt, *tokens])
            best = sorted(range(VOCABULARY), key=lambda token: -values[token])[: body["logprobs"]]
            token = best[0]
            if body["temperature"]:
                token = source.choices(range(VOCABULARY), weights=list(map(math.exp, values)))[0]
            tokens.append(token)
            rows.append((values[token], {f"token_id:{t}": values[t] for t in {*best, token}}))
        return {
            "token_ids": tokens,
            "logprobs": {
                "token_logprobs": [None if self.broken else value for value, _ in rows],
                "top_logprobs": [best for _, best in rows],
            },
        }

    def _told(self, context: Sequence[int], token: int, top: int) -> dict[str, Any]:
        values = self.logprobs(context)
        order = sorted(range(VOCABULARY), key=lambda at: -values[at])
        named = {*order[:top], token}
        return {
            str(at): {"logprob": None if self.broken else values[at], "rank": order.index(at) + 1}
            for at in named
        }

    def metrics(self) -> str:
        return (
            f"{CORRUPTED} {self.provenance if self.corrupts else 0}\n"
            f'{FINISHED}{{finished_reason="stop"}} {self.provenance}\n'
        )

    def _said(self, prompt: str) -> str:
        if self.answer is not None:
            return self.answer
        one, sign, other = prompt.removeprefix("Compute ").split(".")[0].split()
        value = {"+": int(one) + int(other), "-": int(one) - int(other)}.get(sign)
        # It cannot multiply: a task in which all is right would prove nothing.
        knows = value is not None or hashlib.sha256(prompt.encode()).digest()[0] % 2
        return f"#### {int(one) * int(other) if value is None else value}" if knows else "?"


class Handler(BaseHTTPRequestHandler):
    """Hands what is asked to the server's behaviour."""

    protocol_version = "HTTP/1.1"
    server: "Answering"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._say(200, {"data": [{"id": "known", "max_model_len": 256}]})
        elif self.path == "/metrics" and self.server.behaviour.corrupts is not None:
            self._say(200, self.server.behaviour.metrics())
        else:
            self._say(404, {})

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        text = self.rfile.read(length)
        if len(text) < length:  # the client ended its request half-way
            self.close_connection = True
            return
        body = json.loads(text)
        behaviour = self.server.behaviour
        behaviour.provenance += 1
        if self.path == "/tokenize":
            digits = [
                part for at in body["prompt"].encode("ascii", "replace") for part in divmod(at, 12)
            ]
            self._say(200, {"tokens": digits})
            return
        if behaviour.on_first and not behaviour.salts:
            behaviour.on_first()
        behaviour.salts.append(body["cache_salt"])
        if body.get("logprobs", body.get("prompt_logprobs", 0)) > VOCABULARY:
            self._say(400, {"error": {"message": f"at most {VOCABULARY} logprobs"}})
        elif behaviour.fail and behaviour.provenance % behaviour.fail == 0:
            self._say(500, {})
        else:
            self._say(200, {"choices": [behaviour.complete(body)]})

    def _say(self, code: int, document: dict[str, Any] | str) -> None:
        text = (document if isinstance(document, str) else json.dumps(document)).encode()
        with suppress(ConnectionError):  # the client may have seen enough
            self.send_response(code)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class Answering(ThreadingHTTPServer):
    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up at any moment, also between two requests: that is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The server's address; it has ended when the block has."""
    with Answering(behaviour) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
