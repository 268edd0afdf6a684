"""The verdict as Prometheus text: one state set, the estimate with its ends, each check."""

from collections.abc import Iterator

from moe_serve.canary.analysis.estimate import Estimate, NoEstimate
from moe_serve.canary.analysis.verdict import Verdict
from moe_serve.canary.service.watch import Answer


def exposition(answer: Answer) -> str:
    """Prometheus's text format; what has no data has no series."""
    return "".join(f"{line}\n" for line in _lines(answer))


def _lines(answer: Answer) -> Iterator[str]:
    verdict = answer.to_json()["verdict"]
    yield from _head("moe_serve_canary_verdict", "1 for the verdict that holds now.")
    for known in Verdict:
        yield f'moe_serve_canary_verdict{{verdict="{known.value}"}} {int(known.value == verdict)}'
    yield from _head("moe_serve_canary_judged_timestamp_seconds", "When it was judged last.")
    yield f"moe_serve_canary_judged_timestamp_seconds {answer.at}"
    yield from _head("moe_serve_canary_source_up", "1: the source answered at the last attempt.")
    yield f"moe_serve_canary_source_up {int(answer.fault is None)}"
    found = answer.findings
    if found is None:
        return
    rates = {"step": found.step, "kernel": found.kernel, "equal_weights": found.equal}
    for suffix, text in (("", "natural log of the speed-up"), ("_lo", "its lower end"),
                         ("_hi", "its upper end")):  # fmt: skip
        name = f"moe_serve_canary_log_ratio{suffix}"
        yield from _head(name, f"Canary over stable: {text}.")
        for rate, estimate in rates.items():
            if isinstance(estimate, Estimate):
                yield f'{name}{{rate="{rate}"}} {_end(estimate, suffix)}'
    yield from _head("moe_serve_canary_covered_ratio", "Share of the busy time spoken for.")
    yield from _covered(rates)
    yield from _head("moe_serve_canary_check_passed", "1: the judge's check passed.")
    for check in found.judgement.checks:
        yield f'moe_serve_canary_check_passed{{check="{check.name}"}} {int(check.passed)}'
    for name, text, values in (
        ("number", "A check's number.", [(c.name, c.number) for c in found.judgement.checks]),
        ("threshold", "Its threshold.", [(c.name, c.threshold) for c in found.judgement.checks]),
    ):
        yield from _head(f"moe_serve_canary_check_{name}", text)
        for check_name, value in values:
            if value is not None:
                yield f'moe_serve_canary_check_{name}{{check="{check_name}"}} {value}'


def _head(name: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"


def _end(estimate: Estimate, suffix: str) -> float:
    return {"": estimate.theta, "_lo": estimate.lo, "_hi": estimate.hi}[suffix]


def _covered(rates: dict[str, Estimate | NoEstimate]) -> Iterator[str]:
    for rate, estimate in rates.items():
        if isinstance(estimate, Estimate):
            yield f'moe_serve_canary_covered_ratio{{rate="{rate}"}} {estimate.covered_weight}'
