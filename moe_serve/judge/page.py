"""The live page: verdict and reason first, then the estimate over time, cells, checks, arms.

No script and nothing from elsewhere: it refreshes itself, works in an air gap and on a phone.
"""

import datetime
import math
from collections.abc import Sequence
from html import escape

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.series import CellKind
from moe_serve.analysis.verdict import Check, Severity, Verdict
from moe_serve.judge.watch import Evaluation
from moe_serve.report.wording import headline

REFRESH_SECONDS = 15
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 260, 56, 28
_STYLE = """
:root{color-scheme:light dark;--good:#157f3b;--bad:#b42318;--wait:#8a5a00;--void:#5b5f66;
--line:#1f6feb;--soft:#1f6feb33;--rule:#8885}
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem}
h1{font-size:1.9rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
.promote h1{color:var(--good)}.rollback h1{color:var(--bad)}.keep_going h1{color:var(--wait)}
.invalid h1{color:var(--void)}.reason{font-size:1.1rem;margin:.2rem 0 .8rem}
.fault{border-left:.3rem solid var(--bad);padding:.4rem .8rem;background:#b4231818}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}td,th{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid var(--rule);vertical-align:top}
svg{width:100%;height:auto}
footer{margin-top:2rem;color:#777;font-size:.85rem}text{font-size:12px;fill:currentColor}
@media(max-width:40rem){text{font-size:22px}td:nth-child(5){min-width:12rem}}
"""


def page(answer: Evaluation, now: float) -> str:
    """The whole page; `now` is in seconds since the epoch."""
    body = answer.to_json()
    verdict = Verdict(body["verdict"])
    head = headline(verdict)
    fault = (
        f'<p class="fault" role="alert">The source does not answer: {escape(answer.fault)}</p>'
        if answer.fault
        else ""
    )
    age = max(0.0, now - answer.at)
    found = answer.findings
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{head.sign} {head.text}: moe-serve canary</title><style>{_STYLE}</style></head>"
        f'<body class="{verdict.value.lower()}"><main><h1>{head.sign} {head.text}</h1>'
        f'<p class="reason">{escape(str(body["reason"]))}</p>{fault}'
        f"{_findings(found) if found else '<p>No numbers to show yet.</p>'}</main>"
        f"<footer>Judged {age:.0f} s ago; this page refreshes every {REFRESH_SECONDS} s. "
        '<a href="v1/verdict">JSON</a>, <a href="v1/explain">every number as text</a>.</footer>'
        "</body></html>"
    )


def _findings(found: Findings) -> str:
    judgement, seen = found.judgement, found.observations
    return "".join(
        (
            "<h2>Speed-up over time</h2>",
            _chart(found),
            "<h2>Rates</h2>",
            _rates(found),
            "<h2>Batch sizes</h2>",
            _cells(found),
            "<h2>Answers</h2>",
            f"<p>{escape(str(judgement.quality.get('outcome') or 'not compared'))}: "
            f"{escape(str(judgement.quality.get('reason', '')))}</p>",
            "<h2>Arms</h2>",
            _arms(found),
            "<h2>Checks</h2>",
            _table(
                ("", "check", "number", "threshold", ""),
                [
                    (
                        _sign(check),
                        check.name,
                        _number(check.number),
                        _number(check.threshold),
                        check.detail,
                    )
                    for check in judgement.checks
                ],
            ),
            "<h2>Left out</h2>",
            _excluded(found),
            f"<p>{escape(seen.origin)}, {_time(seen.start)} to {_time(seen.end)}, "
            f"rules {escape(judgement.analysis_plan_digest)}.</p>",
        )
    )


def _rates(found: Findings) -> str:
    named = (
        ("steps, the site's own mix", found.estimates.step),
        ("kernel, the site's own mix", found.estimates.kernel),
        ("all cells alike (the published claim)", found.estimates.equal),
        ("batches with prefill (decides nothing)", found.estimates.mixed),
    )
    return _table(
        ("rate", "gain", "from", "to", "blocks"),
        [
            (name, _percent(e.theta), _percent(e.lo), _percent(e.hi), str(e.blocks))
            if isinstance(e, Estimate)
            else (name, "no data", "", "", e.reason)
            for name, e in named
        ],
    )


def _cells(found: Findings) -> str:
    estimates = [
        e for e in (found.estimates.step, found.estimates.kernel) if isinstance(e, Estimate)
    ]
    rows = [
        (str(c.cell), f"{c.weight:.1%}", _percent(c.theta), _percent(c.lo), _percent(c.hi))
        for e in estimates
        for c in e.buckets
    ]
    rows += [
        (str(lost.cell), f"{lost.weight:.1%}", "not covered", "", "")
        for e in estimates
        for lost in e.uncovered
    ]
    return _table(("cell", "weight", "gain", "from", "to"), rows)


def _arms(found: Findings) -> str:
    """What the arms' pods say of their pads and versions, what differs first."""
    stable, canary = (found.observations.facts.get(name, {}) for name in ("stable", "canary"))
    names = sorted(
        stable.keys() | canary.keys(), key=lambda name: (stable.get(name) == canary.get(name), name)
    )
    rows = [(name, stable.get(name, "unknown"), canary.get(name, "unknown")) for name in names]
    if not rows:
        return "<p>No pod says what it runs.</p>"
    return _table(("", "stable", "canary"), rows)


def _excluded(found: Findings) -> str:
    rows = [
        (name, reason, f"{count} of {windows.expected} windows")
        for name, windows in (
            ("stable", found.observations.stable),
            ("canary", found.observations.canary),
        )
        for reason, count in sorted(windows.void.items())
    ]
    return _table(("arm", "why", "how much"), rows) if rows else "<p>Nothing.</p>"


def _chart(found: Findings) -> str:
    """The running estimate with its ends, and the margin, as one drawing."""
    step = found.analysis_plan.policy.primary is CellKind.STEP
    primary = found.estimates.step if step else found.estimates.kernel
    points = [
        (p.start_seconds, p.running_theta, p.running_lo, p.running_hi)
        for p in (primary.series if isinstance(primary, Estimate) else ())
        if p.running_theta is not None and p.running_lo is not None and p.running_hi is not None
    ]
    if len(points) < 2:
        return "<p>The first look has not come yet.</p>"
    margin = found.judgement.checks
    threshold = next((c.threshold for c in margin if c.name.endswith("_gain")), None) or 0.0
    low = min(*(p[2] for p in points), threshold, 0.0)
    high = max(*(p[3] for p in points), threshold, 0.0)
    first, last = points[0][0], points[-1][0]

    def x(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * (seconds - first) / max(1e-9, last - first)

    def y(value: float) -> float:
        return 8 + (_HEIGHT - _BOTTOM - 8) * (high - value) / max(1e-9, high - low)

    band = [f"{x(t):.1f},{y(hi):.1f}" for t, _, _, hi in points]
    band += [f"{x(t):.1f},{y(lo):.1f}" for t, _, lo, _ in reversed(points)]
    line = " ".join(f"{x(t):.1f},{y(theta):.1f}" for t, theta, _, _ in points)
    rules = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="currentColor" '
        f'stroke-dasharray="{dash}" opacity=".5"/>'
        f'<text x="4" y="{y(v) + 4:.1f}">{_percent(v)}</text>'
        for v, dash in ((0.0, ""), (threshold, "4 4"))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="speed-up over time, '
        f'now {_percent(points[-1][1])}">{rules}<polygon points="{" ".join(band)}" '
        f'fill="var(--soft)"/><polyline points="{line}" fill="none" stroke="var(--line)" '
        f'stroke-width="2"/><text x="{_LEFT}" y="{_HEIGHT - 8}">{_time(first)}</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 8}" text-anchor="end">{_time(last)}</text></svg>'
        "<p>Line: estimate so far. Band: its ends, which hold at every look. Dashed: the margin "
        "that the lower end must exceed.</p>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _sign(check: Check) -> str:
    """What was not checked is no pass, and looks like none."""
    if check.severity is Severity.WARNING and check.number is None:
        return "\N{EN DASH}"
    if check.passed:
        return "✓"
    return "✕" if check.severity is Severity.BLOCKING else "!"


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:.4g}"


def _percent(log_ratio: float) -> str:
    return f"{math.expm1(log_ratio):+.1%}" if math.isfinite(log_ratio) else "unknown"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%m-%d %H:%M")
