"""`helm test` of the judge: it answers, it has a verdict's form, and its source answered it."""

import json
import sys
import urllib.error
import urllib.request

BASE, MODE = sys.argv[1:3]
OUTCOMES = ("PROMOTE", "ROLLBACK", "KEEP_GOING", "INVALID")


def ask(path: str) -> tuple[int, str]:
    """Status and body of a page, also of one that says no."""
    try:
        with urllib.request.urlopen(BASE + path, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def main() -> int:
    """Exit 0 if every line says ok."""
    alive, _ = ask("/healthz")
    metrics, text = ask("/metrics")
    told = [
        ("answers", alive == 200),
        ("has metrics", metrics == 200 and "moe_serve_canary" in text),
    ]
    if MODE == "judge":
        status, body = ask("/v1/verdict?detail=false")
        verdict = json.loads(body) if status == 200 else {}
        told += [
            ("has a verdict", verdict.get("verdict") in OUTCOMES),
            (
                f"its source answers ({verdict.get('fault') or 'no fault'})",
                verdict.get("fault") is None,
            ),
        ]
    for what, good in told:
        print("ok  " if good else "FAIL", what)
    return 0 if all(good for _, good in told) else 1


sys.exit(main())
