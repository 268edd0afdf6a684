"""`helm test` of the judge: it answers, it has a verdict's form, and its source answered it."""

import http.client
import json
import sys
import time
import urllib.error
import urllib.request

BASE, MODE = sys.argv[1:3]
PATIENCE_SECONDS = 150
OUTCOMES = ("PROMOTE", "ROLLBACK", "KEEP_GOING", "INVALID")


def ask(path: str) -> tuple[int, str]:
    """Status and body of a page, also of one that says no."""
    try:
        with urllib.request.urlopen(BASE + path, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"FAIL {BASE}{path}: {error}")


def judged() -> tuple[str, bool, str | None]:
    """What the verdict is, whether it is one, and the fault of its source.

    A comparison that has just begun has no samples yet: so a fault is waited for to pass.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        status, body = ask("/v1/verdict?detail=false")
        try:
            verdict, fault = (json.loads(body)[key] for key in ("verdict", "fault"))
        except (ValueError, LookupError, TypeError):
            verdict = fault = None
        if fault is None or time.monotonic() >= end:
            return f"{status} {verdict or body[:200]}", status == 200 and verdict in OUTCOMES, fault
        time.sleep(5)


def main() -> int:
    """Exit 0 if every line says ok."""
    alive, _ = ask("/healthz")
    metrics, text = ask("/metrics")
    told = [
        (f"answers (/healthz {alive})", alive == 200),
        (f"has metrics (/metrics {metrics})", metrics == 200 and "moe_serve_canary" in text),
    ]
    if MODE == "judge":
        said, is_verdict, fault = judged()
        told.append((f"has a verdict (/v1/verdict {said})", is_verdict))
        if is_verdict:
            told.append((f"its source answers ({fault or 'no fault'})", fault is None))
    for what, good in told:
        print("ok  " if good else "FAIL", " ".join(what.split()))
    return 0 if all(good for _, good in told) else 1


sys.exit(main())
