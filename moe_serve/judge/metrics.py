"""The verdict as Prometheus text: one state set, the estimate with its ends, each check."""

from collections.abc import Iterator

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.verdict import Verdict
from moe_serve.judge.watch import Evaluation


def exposition(answer: Evaluation) -> str:
    """Prometheus's text format; what has no data has no series."""
    return "".join(f"{line}\n" for line in _lines(answer))


def _lines(answer: Evaluation) -> Iterator[str]:
    verdict = answer.to_json()["verdict"]
    yield from _head("moe_serve_canary_verdict", "1 for the verdict that holds now.")
    for known in Verdict:
        yield f'moe_serve_canary_verdict{{verdict="{known.value}"}} {int(known.value == verdict)}'
    yield from _head("moe_serve_canary_judged_timestamp_seconds", "When it was judged last.")
    yield f"moe_serve_canary_judged_timestamp_seconds {answer.at}"
    yield from _head("moe_serve_canary_source_up", "1: the source answered at the last attempt.")
    yield f"moe_serve_canary_source_up {int(answer.fault is None)}"
    if answer.findings is not None:
        yield from _rates(answer.findings)
        yield from _checks(answer.findings)


def _rates(found: Findings) -> Iterator[str]:
    rates = {"step": found.step, "kernel": found.kernel, "equal_weights": found.equal}
    known = {name: rate for name, rate in rates.items() if isinstance(rate, Estimate)}
    for name, text, values in (
        ("log_ratio", "Natural log of the speed-up.", {k: e.theta for k, e in known.items()}),
        ("log_ratio_lo", "Its lower end.", {k: e.lo for k, e in known.items()}),
        ("log_ratio_hi", "Its upper end.", {k: e.hi for k, e in known.items()}),
        (
            "covered_ratio",
            "Share of the busy time spoken for.",
            {k: e.covered_weight for k, e in known.items()},
        ),
    ):
        yield from _head(f"moe_serve_canary_{name}", text)
        for rate, value in values.items():
            yield f'moe_serve_canary_{name}{{rate="{rate}"}} {value}'


def _checks(found: Findings) -> Iterator[str]:
    checks = found.judgement.checks
    yield from _head("moe_serve_canary_check_passed", "1: the judge's check passed.")
    for check in checks:
        yield f'moe_serve_canary_check_passed{{check="{check.name}"}} {int(check.passed)}'
    numbers = {check.name: check.number for check in checks}
    thresholds = {check.name: check.threshold for check in checks}
    for name, text, values in (
        ("number", "A check's number.", numbers),
        ("threshold", "Its threshold.", thresholds),
    ):
        yield from _head(f"moe_serve_canary_check_{name}", text)
        for check_name, value in values.items():
            if value is not None:
                yield f'moe_serve_canary_check_{name}{{check="{check_name}"}} {value}'


def _head(name: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
