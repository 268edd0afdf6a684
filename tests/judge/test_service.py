"""The judge over HTTP: what an engine reads, what a person sees, and what happens on a fault."""

import json
import threading
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from moe_serve.analysis.history import History
from moe_serve.errors import UsageError
from moe_serve.judge.main import targets
from moe_serve.quality.result import NoQuality
from tests.judge.serving import NOW, RULES, Memory, Served
from tests.testing.histories import Fleet


def test_a_good_canary_is_promoted_everywhere(served: Served) -> None:
    watch, client = served(Memory())
    watch.judge()
    body = client.get("/v1/verdict").json()
    assert body["verdict"] == "PROMOTE"
    assert body["lo"] < body["theta"] < body["hi"]
    assert client.get("/gate/promote").status_code == 200
    assert client.get("/gate/rollback").status_code == 409
    assert client.get("/gate/traffic").status_code == 200
    assert body["answers"] == "passed"
    assert client.post("/gate/promote", json={"phase": "Progressing"}).status_code == 200
    assert client.get("/readyz").status_code == 200
    page = client.get("/").text
    assert "✓ PROMOTE" in page
    assert "<tr><td>policy</td><td>zero</td><td>aligned</td></tr>" in page
    assert 'moe_serve_canary_verdict{verdict="PROMOTE"} 1' in client.get("/metrics").text
    assert client.get("/v1/explain").text.startswith("PROMOTE: ")


def test_the_numbers_stand_beside_what_was_asked_for_them_and_engines_may_leave_them_out(
    served: Served,
) -> None:
    watch, client = served(Memory())
    watch.judge()
    queries = client.get("/v1/verdict").json()["queries"]
    step = next(query for query in queries if query["subject"] == "step")
    assert "step_gain" in step["checks"]
    assert f"step: {step['samples']} samples of 24 series, behind arms_alive, " in (
        client.get("/v1/explain").text
    )
    assert f"\n    {step['expression']}\n" in client.get("/v1/explain").text
    assert "queries" not in client.get("/v1/verdict?detail=false").json()
    schema = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schema["QueryBody"]["required"]) == set(step)


def test_before_the_first_judgement_nothing_is_decided(served: Served) -> None:
    _, client = served(Memory())
    body = client.get("/v1/verdict").json()
    assert (body["verdict"], body["reason"]) == ("KEEP_GOING", "not judged yet")
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert "not judged yet" in client.get("/").text


def test_a_source_that_fails_keeps_the_last_findings_for_a_time(
    served: Served,
) -> None:
    moment = NOW
    source = Memory()
    watch, client = served(source, now=lambda: moment)
    watch.judge()
    source.fault = "Prometheus <b>down</b>"
    watch.judge()
    body = client.get("/v1/verdict").json()
    assert (body["verdict"], body["fault"]) == ("PROMOTE", "Prometheus <b>down</b>")
    # A gate opens on fresh findings only: an engine acts on it without reading further.
    assert client.get("/gate/promote").status_code == 409
    page = client.get("/").text
    assert "Prometheus &lt;b&gt;down" in page
    assert "<b>down" not in page
    assert "moe_serve_canary_source_up 0" in client.get("/metrics").text
    moment += RULES.policy.blind_seconds + 1
    watch.judge()
    body = client.get("/v1/verdict").json()
    assert (body["verdict"], body["theta"]) == ("KEEP_GOING", None)
    assert client.get("/readyz").status_code == 503


def test_without_a_comparison_of_answers_nothing_is_promoted(served: Served) -> None:
    watch, client = served(Memory(), NoQuality(reason="nobody asked"))
    watch.judge()
    body = client.get("/v1/verdict").json()
    assert body["verdict"] == "KEEP_GOING"
    assert "nobody asked" in body["reason"]
    assert body["answers"] is None
    assert client.get("/gate/traffic").status_code == 409


def test_an_unforeseen_error_is_told_and_does_not_end_the_watch(served: Served) -> None:
    source = Memory()
    watch, client = served(source)
    stop = threading.Event()

    def broken(start: float, end: float) -> History:
        stop.set()
        raise ZeroDivisionError("a bug")

    source.history = broken  # type: ignore[method-assign]
    watch.run(0.0, stop)
    assert client.get("/v1/verdict").json()["fault"] == "ZeroDivisionError: a bug"


def test_the_page_needs_nothing_from_elsewhere(served: Served) -> None:
    watch, client = served(Memory())
    watch.judge()
    answer = client.get("/")
    assert "<script" not in answer.text
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_answers_match_the_published_schema(served: Served) -> None:
    """The interface's own description, checked by generated calls."""
    watch, client = served(Memory())
    watch.judge()
    schema = schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def calls(case: Any) -> None:
            case.call_and_validate()

        calls()
        tried += 1
    assert tried == 12


def test_json_holds_no_number_that_json_lacks(served: Served) -> None:
    watch, client = served(Memory(Fleet(hours=4, buckets=(8,))))
    watch.judge()
    json.loads(client.get("/v1/verdict").text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["stable"], "as stable=http"),
        (["blue=http://a/metrics"], "as stable=http"),
        (["stable=http://a/metrics"], "none is given for the canary"),
    ],
)
def test_targets_are_checked_before_anything_starts(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        targets(given)
