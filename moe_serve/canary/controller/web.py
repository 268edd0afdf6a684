"""The controller's metrics and health over HTTP, for Prometheus and the kubelet."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moe_serve.canary.analysis.verdict import Verdict
from moe_serve.canary.controller.loop import Looked
from moe_serve.canary.rollout.plan import Plan
from moe_serve.canary.rollout.state import Phase, State, Trouble
from moe_serve.canary.rollout.weights import Arm
from moe_serve.errors import UsageError


@dataclass(slots=True, kw_only=True)
class Status:
    """What the last looks gave; written by the loop, read by the web server."""

    plan: Plan
    active: bool
    stale_seconds: float
    clock: Callable[[], float]
    looked: Looked | None = None
    at: float = 0.0
    errors: int = 0
    looks: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, looked: Looked) -> None:
        """Keep what a look gave."""
        with self._lock:
            self.looked, self.at = looked, self.clock()
            self.looks += 1
            self.errors += bool(looked.error)

    @property
    def healthy(self) -> bool:
        """The loop turns, whatever it finds."""
        return self.looked is not None and self.clock() - self.at < self.stale_seconds

    def metrics(self) -> str:
        """Prometheus's text format; what has no data has no series."""
        with self._lock:
            return "".join(f"{line}\n" for line in _lines(self))


def _lines(status: Status) -> Iterator[str]:
    name = "moe_serve_rollout"
    yield from _one(f"{name}_active", "1: it writes; 0: shadow.", int(status.active))
    yield from _one(f"{name}_looks_total", "Looks at the cluster.", status.looks, "counter")
    yield from _one(f"{name}_errors_total", "Looks that failed.", status.errors, "counter")
    yield from _one(f"{name}_last_look_timestamp_seconds", "When it looked last.", status.at)
    looked = status.looked
    if looked is None:
        return
    yield from _one(f"{name}_leader", "1: this controller leads.", int(looked.leads))
    state = looked.state
    if state is None or state.plan != status.plan.digest:
        return
    yield from _set(f"{name}_phase", "phase", list(Phase), state.phase)
    verdicts = ["none", *(verdict.value for verdict in Verdict)]
    yield from _set(f"{name}_verdict", "verdict", verdicts, state.verdict)
    trouble = state.concern.trouble if state.concern else None
    yield from _set(f"{name}_trouble", "trouble", list(Trouble), trouble)
    weights = state.weights(status.plan)
    yield from _head(f"{name}_weight_ratio", "Share of the requests that an arm is to get.")
    for arm in Arm:
        yield f'{name}_weight_ratio{{arm="{arm}"}} {weights.of(arm) / 100}'
    yield from _one(
        f"{name}_weights_in_force", "1: the route shows them.", int(state.in_force is not None)
    )
    yield from _one(f"{name}_step", "Step, from 1; 0 before the first.", _step(state))
    yield from _one(f"{name}_revision", "Rises with every change.", state.revision)


def _step(state: State) -> int:
    return 0 if state.stage in (Phase.PENDING, Phase.QUALITY) else state.step + 1


def _head(name: str, text: str, kind: str = "gauge") -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _one(name: str, text: str, value: float, kind: str = "gauge") -> Iterator[str]:
    yield from _head(name, text, kind)
    yield f"{name} {value}"


def _set(name: str, label: str, known: list[str], value: str | None) -> Iterator[str]:
    yield from _head(name, f"1 for the {label} that holds now.")
    for one in known:
        yield f'{name}{{{label}="{one}"}} {int(one == value)}'


def serve(status: Status, host: str, port: int) -> ThreadingHTTPServer:
    """Serve in a thread of its own.

    Raises:
        UsageError: the address is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                kind = "text/plain; version=0.0.4; charset=utf-8"
                self._answer(200, kind, status.metrics())
            elif self.path == "/healthz":
                well = status.healthy
                self._answer(200 if well else 503, "text/plain", "ok\n" if well else "stuck\n")
            else:
                self._answer(404, "text/plain", "only /metrics and /healthz\n")

        def _answer(self, code: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Scrapes are not news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
