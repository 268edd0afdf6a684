"""The controller's metrics and health over HTTP, for Prometheus and the kubelet."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moe_serve.analysis.verdict import Verdict
from moe_serve.controller.catalogue import METRICS, PREFIX
from moe_serve.controller.loop import ReconcileResult
from moe_serve.errors import UsageError
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.state import HoldReason, RolloutPhase, RolloutState
from moe_serve.rollout.state_json import to_json as stored_json
from moe_serve.rollout.weights import Track


@dataclass(slots=True, kw_only=True)
class Status:
    """What the last looks gave; written by the loop, read by the web server."""

    plan: RolloutPlan
    active: bool
    stale_seconds: float
    clock: Callable[[], float]
    result: ReconcileResult | None = None
    at: float = 0.0
    errors: int = 0
    reconciles: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, result: ReconcileResult) -> None:
        """Keep what a look gave."""
        with self._lock:
            self.result, self.at = result, self.clock()
            self.reconciles += 1
            self.errors += bool(result.error)

    @property
    def healthy(self) -> bool:
        """The loop turns, whatever it finds."""
        return self.result is not None and self.clock() - self.at < self.stale_seconds

    def seen(self) -> dict[str, Any]:
        """What the last look gave, for `canary status` of a shadow: it writes nothing anywhere."""
        with self._lock:
            result = self.result
        state = result.state if result else None
        return {
            "state": stored_json(state) if state else None,
            "fault": result.error if result else "it has not looked yet",
        }

    def metrics(self) -> str:
        """Prometheus's text format; what has no data has no series."""
        with self._lock:
            return "".join(f"{line}\n" for line in _lines(self))


def _lines(status: Status) -> Iterator[str]:
    yield from _one("active", int(status.active))
    arms = status.plan.arms.items()
    yield from _samples("arm_info", {(role.value, part.label): 1 for role, part in arms})
    yield from _one("reconciles_total", status.reconciles)
    yield from _one("errors_total", status.errors)
    yield from _one("last_look_timestamp_seconds", status.at)
    result = status.result
    if result is None:
        return
    yield from _one("leader", int(result.is_leader))
    state = result.state
    if result.error:
        yield from _set("reason", list(HoldReason), HoldReason.FAULT)
    elif state:
        found = state.pending_hold.reason if state.pending_hold else None
        yield from _set("reason", list(HoldReason), found)
    if state is None or state.plan != status.plan.digest:
        return
    yield from _set("phase", list(RolloutPhase), state.phase)
    verdicts = ["none", *(verdict.value for verdict in Verdict)]
    yield from _set("verdict", verdicts, state.verdict)
    weights = state.weights(status.plan)
    yield from _samples("weight_ratio", {(arm.value,): weights.of(arm) / 100 for arm in Track})
    yield from _one("weights_in_force", int(state.in_force is not None))
    yield from _one("step", _step(state))
    yield from _one("revision", state.revision)


def _step(state: RolloutState) -> int:
    return 0 if state.stage in (RolloutPhase.PENDING, RolloutPhase.QUALITY) else state.step + 1


def _one(name: str, value: float) -> Iterator[str]:
    yield from _samples(name, {(): value})


def _set(name: str, known: list[str], value: str | None) -> Iterator[str]:
    yield from _samples(name, {(one,): int(one == value) for one in known})


def _samples(name: str, values: Mapping[tuple[str, ...], float]) -> Iterator[str]:
    metric, full = METRICS[name], PREFIX + name
    yield f"# HELP {full} {metric.help}"
    yield f"# TYPE {full} {metric.type}"
    for of, value in values.items():
        labels = ",".join(f'{key}="{text}"' for key, text in zip(metric.labels, of, strict=True))
        yield f"{full}{{{labels}}} {value}" if labels else f"{full} {value}"


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
            elif self.path == "/state":
                body = json.dumps(status.seen(), sort_keys=True, allow_nan=False)
                self._answer(200, "application/json", body)
            elif self.path == "/healthz":
                well = status.healthy
                self._answer(200 if well else 503, "text/plain", "ok\n" if well else "stuck\n")
            else:
                self._answer(404, "text/plain", "only /metrics, /state and /healthz\n")

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
