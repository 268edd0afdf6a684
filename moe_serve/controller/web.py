"""The controller's metrics and health over HTTP, for Prometheus and the kubelet."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moe_serve.analysis.verdict import Verdict
from moe_serve.bounded_requests import BoundedRequests
from moe_serve.controller.loop import ReconcileResult
from moe_serve.errors import UsageError
from moe_serve.metrics.catalogue import ROLLOUT
from moe_serve.metrics.exposition import TEXT, render
from moe_serve.metrics.samples import Samples
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.state import HoldReason, RolloutPhase, RolloutState
from moe_serve.rollout.state_json import to_json as stored_json
from moe_serve.rollout.weights import Track

_LOG = logging.getLogger(__name__)


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
    worker_failure: Callable[[], str | None] = lambda: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, result: ReconcileResult) -> None:
        """Keep what a look gave."""
        with self._lock:
            self.result, self.at = result, self.clock()
            self.reconciles += 1
            self.errors += bool(result.error)

    @property
    def healthy(self) -> bool:
        """The loop turns, whatever it finds, and no thread beside it has ended."""
        return not self.failure

    @property
    def failure(self) -> str:
        """Why it is not healthy, in one line; empty if it is."""
        if self.result is None or self.clock() - self.at >= self.stale_seconds:
            return "stuck"
        return self.worker_failure() or ""

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
            return render(_samples(self)).decode()


def _samples(status: Status) -> Samples:
    samples = Samples(ROLLOUT)
    samples.put("active", int(status.active))
    for track, part in status.plan.tracks.items():
        samples.put("track_info", 1, track.value, part.label)
    samples.put("reconciles_total", status.reconciles)
    samples.put("errors_total", status.errors)
    samples.put("last_reconcile_timestamp_seconds", status.at)
    samples.put("audit_write_failed", int(bool(status.result and status.result.audit_fault)))
    samples.put("worker_failed", int(status.worker_failure() is not None))
    if status.result is not None:
        _add_result(samples, status.plan, status.result)
    return samples


def _add_result(samples: Samples, plan: RolloutPlan, result: ReconcileResult) -> None:
    samples.put("leader", int(result.is_leader))
    samples.put("load_age_seconds", result.load_age_seconds)
    state = result.state
    if result.error:
        samples.put_state("hold_reason", HoldReason.FAULT, of=HoldReason)
    elif state:
        found = state.pending_hold.reason if state.pending_hold else None
        samples.put_state("hold_reason", found, of=HoldReason)
    if state is None or state.plan != plan.digest:
        return
    samples.put_state("phase", state.phase, of=RolloutPhase)
    verdicts = ["none", *(verdict.value for verdict in Verdict)]
    samples.put_state("verdict", state.verdict, of=verdicts)
    weights = state.weights(plan)
    for track in Track:
        samples.put("weight_ratio", weights.of(track) / 100, track.value)
    samples.put("weights_in_force", int(state.in_force is not None))
    samples.put("step", _step(state))
    samples.put("revision", state.revision)


def _step(state: RolloutState) -> int:
    return 0 if state.stage in (RolloutPhase.PENDING, RolloutPhase.QUALITY) else state.step + 1


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("%s: the request failed", client_address, exc_info=True)


def serve(status: Status, host: str, port: int) -> ThreadingHTTPServer:
    """Serve in a thread of its own.

    Raises:
        UsageError: the address is in use.
    """

    class Handler(BoundedRequests, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, TEXT, status.metrics())
            elif self.path == "/state":
                body = json.dumps(status.seen(), sort_keys=True, allow_nan=False)
                self._answer(200, "application/json", body)
            elif self.path == "/healthz":
                failure = status.failure
                self._answer(503 if failure else 200, "text/plain", f"{failure or 'ok'}\n")
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
        server = _Server((host, port), Handler)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
