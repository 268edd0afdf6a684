"""The judge's HTTP interface: one verdict, as JSON for engines and as a page for people."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict

from moe_serve import __version__
from moe_serve.analysis.provenance import Subject
from moe_serve.analysis.verdict import Severity, Verdict
from moe_serve.judge.metrics import judge_samples
from moe_serve.judge.page import page
from moe_serve.judge.watch import ComparisonWatch
from moe_serve.metrics.exposition import TEXT, render
from moe_serve.report.explanation import explain

CONTENT_SECURITY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class VerdictBody(BaseModel):
    """What rollout engines read; further keys hold the numbers behind it."""

    model_config = ConfigDict(extra="allow")

    verdict: Literal["PROMOTE", "ROLLBACK", "KEEP_GOING", "INVALID"]
    reason: str
    theta: float | None
    lo: float | None
    hi: float | None
    speedup: float | None
    covered_weight: float | None
    answers: Literal["passed", "failed", "undecided"] | None
    judged_at: float
    fault: str | None
    audit_fault: str | None


class QueryBody(BaseModel):
    """What the source was asked for the samples behind some checks, to be asked again."""

    subject: Subject
    source: str
    expression: str
    series: int
    samples: int
    checks: list[str]


class CheckBody(BaseModel):
    """One question that the judge asked; without data `number` is null."""

    name: str
    number: float | None
    threshold: float | None
    passed: bool
    severity: Severity
    detail: str


class WindowBody(BaseModel):
    """Which stretch of time was judged, in seconds since the epoch."""

    start: float
    end: float


class DetailedBody(VerdictBody):
    """With `detail`, once there are findings: what each number rests on."""

    window: WindowBody | None = None
    checks: list[CheckBody] | None = None
    queries: list[QueryBody] | None = None


class Health(BaseModel):
    """Alive, or ready; `detail` says why not."""

    ok: bool
    detail: str


def make_app(
    watch: ComparisonWatch,
    *,
    clock: Callable[[], float],
    worker_failure: Callable[[], str | None] = lambda: None,
) -> FastAPI:
    """The service over one watched comparison; `worker_failure` fails its health check."""
    app = FastAPI(
        title="moe-serve judge",
        version=__version__,
        description="Is the canary faster, with the same answers? 200 with KEEP_GOING when data "
        "is missing: an engine must not take a fault of the judge for a fault of the canary.",
        docs_url=None,
        redoc_url=None,
    )

    @app.middleware("http")
    async def headers(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    _for_engines(app, watch)
    _for_people(app, watch, clock)
    _health(app, worker_failure)
    return app


def _gate(watch: ComparisonWatch, response: Response, wanted: Verdict) -> Health:
    body = watch.answer().to_json()
    opened = body["verdict"] == wanted.value and body["fault"] is None
    response.status_code = 200 if opened else 409
    return Health(ok=opened, detail=f"{body['verdict']}: {body['reason']}")


def _traffic_gate(watch: ComparisonWatch, response: Response) -> Health:
    """Open once the answers are shown to be the same, as long as nothing speaks against it."""
    body = watch.answer().to_json()
    against = (Verdict.ROLLBACK.value, Verdict.INVALID.value)
    answers = body["answers"] or "not compared"
    opened = answers == "passed" and body["verdict"] not in against and body["fault"] is None
    response.status_code = 200 if opened else 409
    return Health(ok=opened, detail=f"answers {answers}; {body['verdict']}: {body['reason']}")


def _for_engines(app: FastAPI, watch: ComparisonWatch) -> None:
    @app.get("/v1/verdict", response_model=DetailedBody)
    def verdict(
        detail: Annotated[
            bool, Query(description="with strata, checks, queries and exclusions")
        ] = True,
    ) -> JSONResponse:
        """The latest verdict with its numbers."""
        body = watch.answer().to_json()
        if not detail:
            body = {key: body[key] for key in VerdictBody.model_fields}
        return JSONResponse(body)

    @app.get("/v1/explain", response_class=PlainTextResponse)
    def explained() -> PlainTextResponse:
        """Every number behind the verdict, as text."""
        answer = watch.answer()
        return PlainTextResponse(explain(answer.findings) if answer.findings else f"{answer.fault}")

    # Flagger's webhooks are POSTs, with a body that says nothing a gate needs.
    @app.post("/gate/promote", response_model=Health, responses={409: {"model": Health}})
    @app.get("/gate/promote", response_model=Health, responses={409: {"model": Health}})
    def gate_promote(response: Response) -> Health:
        """For hooks that wait: 200 on PROMOTE alone, else 409."""
        return _gate(watch, response, Verdict.PROMOTE)

    @app.post("/gate/traffic", response_model=Health, responses={409: {"model": Health}})
    @app.get("/gate/traffic", response_model=Health, responses={409: {"model": Health}})
    def gate_traffic(response: Response) -> Health:
        """For hooks before traffic: 200 once the answers passed and nothing speaks against."""
        return _traffic_gate(watch, response)

    @app.post("/gate/rollback", response_model=Health, responses={409: {"model": Health}})
    @app.get("/gate/rollback", response_model=Health, responses={409: {"model": Health}})
    def gate_rollback(response: Response) -> Health:
        """For hooks that roll back: 200 on ROLLBACK alone, else 409."""
        return _gate(watch, response, Verdict.ROLLBACK)


def _health(app: FastAPI, worker_failure: Callable[[], str | None]) -> None:
    @app.get("/healthz", response_model=Health, responses={503: {"model": Health}})
    def healthz(response: Response) -> Health:
        """The process answers, and none of its threads has ended."""
        failure = worker_failure()
        response.status_code = 503 if failure else 200
        return Health(ok=failure is None, detail=failure or "alive")


def _for_people(app: FastAPI, watch: ComparisonWatch, clock: Callable[[], float]) -> None:
    @app.get("/readyz", response_model=Health, responses={503: {"model": Health}})
    def readyz(response: Response) -> Health:
        """The source answered within the policy's blind time."""
        answer = watch.answer()
        response.status_code = 200 if answer.findings else 503
        return Health(ok=answer.findings is not None, detail=answer.fault or "judging")

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """The verdict for Prometheus."""
        return PlainTextResponse(render(judge_samples(watch.answer())), media_type=TEXT)

    @app.get("/", response_class=HTMLResponse)
    def live() -> HTMLResponse:
        """The live page."""
        return HTMLResponse(page(watch.answer(), clock()))
