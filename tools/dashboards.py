"""Write Grafana's dashboards: `python -m tools.dashboards [--check]`.

`deploy/monitoring/dashboards/*.json` are written by this program alone; `--check` compares them.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "deploy" / "monitoring" / "dashboards"
CLAIM = 1.08  # what vLLM's pull request 42098 reports
_WHERE = 'namespace=~"$namespace", model=~"$model"'
_TRACKS = f'{_WHERE}, track=~"$track"'
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query; `legend` in Grafana's form."""

    expr: str
    legend: str = "{{track}}"
    instant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `line`: a value to compare with. `needs`: what it shows nothing without."""

    title: str
    description: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    unit: str = "short"
    line: float | None = None
    needs: str = ""


def _of(name: str, where: str = _TRACKS) -> str:
    return f"{name}{{{where}}}"


def _one(expr: str, legend: str = "{{track}}") -> tuple[Query, ...]:
    return (Query(expr=expr, legend=legend),)


def _by_bucket(expr: str) -> tuple[Query, ...]:
    return _one(expr, "{{track}} {{mode}} {{bucket}}")


_SAFETY = (
    Panel(
        title="Padding proven",
        description="Workers that have proven that safe pads are in force, of those that live.",
        kind="stat",
        unit="percentunit",
        queries=_one(
            f"avg by (track) ({_of('moe_serve_padding_active')}"
            f" and on (namespace, pod, instance, rank) moe_serve_source_up == 1)"
        ),
    ),
    Panel(
        title="Live neurons lost",
        description="Largest share of live weights that any worker's pads lose. 0 by default.",
        kind="stat",
        unit="percentunit",
        queries=_one(f"max by (track) ({_of('moe_serve_padding_neuron_loss_ratio')})"),
    ),
    Panel(
        title="Living workers",
        description="Workers whose record is held by a living process.",
        kind="stat",
        queries=_one(f"sum by (track) ({_of('moe_serve_source_up')})"),
    ),
    Panel(
        title="Policy and pads as sent",
        description="What each worker passes to the fused MoE: read from its own calls.",
        kind="table",
        queries=(
            Query(
                expr="count by (track, policy, path, quant, hidden_pad, intermediate_pad, "
                f"worker_config_digest) ({_of('moe_serve_config_info')})",
                legend="",
                instant=True,
            ),
        ),
    ),
)
_KERNEL_RATE = Panel(
    title="Kernel tokens per second",
    description="Rows through the timed fused-MoE calls over the time in them: a graph's padding "
    "counts as rows.",
    queries=_one(_of("track:moe_serve_kernel_tokens_per_second:ratio5m")),
)
_WASTE = Panel(
    title="Padding waste",
    description="Share of a fused-MoE call's work that is padding, by the sizes and pads alone.",
    unit="percentunit",
    queries=_one(_of("track:moe_serve_padding_waste:ratio"), "{{track}} {{dim}}"),
)
_SHARE = Panel(
    title="MoE's share of a forward window",
    description="The timed layers' time, scaled to all MoE layers, over the windows' time.",
    unit="percentunit",
    queries=_one(_of("track:moe_serve_moe_share:ratio5m")),
)
_TOKENS = Panel(
    title="Generated tokens per second and worker",
    description="vLLM's own count. It follows demand: compare it only under equal load.",
    queries=_one(_of("track:vllm_generation_tokens_per_worker:rate5m")),
)
_LATENCY = Panel(
    title="Mean time between tokens",
    description="vLLM's own inter-token latency.",
    unit="s",
    queries=_one(_of("track:vllm_inter_token_latency_seconds:mean5m")),
)
_STEPS = Panel(
    title="Served steps per second",
    description="By phase: all requests in decode, or a mixture with prefill.",
    queries=_one(
        f"sum by (track, phase) (rate({_of('moe_serve_steps_total')}[$__rate_interval]))",
        "{{track}} {{phase}}",
    ),
)
_GRAPH_PADDING = Panel(
    title="Rows that are a graph's padding",
    description="1 - scheduled over computed rows: the price of replaying the next larger graph.",
    unit="percentunit",
    queries=_one(_of("track:moe_serve_graph_padding:ratio5m")),
)
_MEAN = Panel(
    title="Mean time of a fused-MoE call",
    description="Per batch size, exact: seconds over calls of the timed layers.",
    unit="s",
    queries=_by_bucket(_of("track_cell:moe_serve_kernel_seconds:mean5m")),
)
_CALLS = Panel(
    title="Timed calls per second",
    description="Which batch sizes the traffic meets.",
    queries=_by_bucket(_of("track_cell:moe_serve_kernel_invocations:rate5m")),
)
_SPREAD = Panel(
    title="Spread of fused-MoE calls",
    description="Quantiles over all batch sizes, from a histogram with a factor of 1.6 a bound.",
    unit="s",
    queries=tuple(
        Query(
            expr=f"histogram_quantile({q}, sum by (track, le) "
            f"(rate({_of('moe_serve_kernel_duration_seconds_bucket')}[$__rate_interval])))",
            legend=f"{{{{track}}}} p{q * 100:.0f}",
        )
        for q in (0.5, 0.99)
    ),
)
_ROOFLINE = Panel(
    title="Share of the roofline",
    description="The time that the unpadded work needs at the device's peaks, over the time taken.",
    unit="percentunit",
    needs="peaks",
    queries=_one(_of("track:moe_serve_roofline:ratio5m")),
)
_BYTES = Panel(
    title="Memory traffic in fused-MoE calls",
    description="Modelled bytes over measured time, with the device's peak. Above the peak, "
    "something is wrong.",
    unit="Bps",
    needs="peaks",
    queries=(
        Query(expr=_of("track:moe_serve_achieved_bytes_per_second:ratio5m")),
        Query(
            expr=f"max({_of('moe_serve_peak_memory_bandwidth_bytes_per_second')})", legend="peak"
        ),
    ),
)
_FLOPS = Panel(
    title="Operations in fused-MoE calls",
    description="Modelled operations over measured time, padding included.",
    unit="flops",
    queries=_one(_of("track:moe_serve_achieved_flops_per_second:ratio5m")),
)
_EAGER = Panel(
    title="Decode without a graph",
    description="Share of timed decode calls that were launched eagerly.",
    unit="percentunit",
    queries=_one(_of("track:moe_serve_eager_decode:ratio5m")),
)
_OVERHEAD = Panel(
    title="What the markers cost",
    description="Share of a median step, calibrated and counted double, and the budget.",
    unit="percentunit",
    needs="a thousand steps",
    queries=(
        Query(expr=f"max by (track) ({_of('moe_serve_marker_overhead_ratio')})"),
        Query(expr=f"max({_of('moe_serve_marker_budget_ratio')})", legend="budget"),
    ),
)
_STATE = Panel(
    title="State of the markers",
    description="Workers by what has become of their markers.",
    queries=_one(
        f"sum by (track, state) ({_of('moe_serve_instrumentation_state')})", "{{track}} {{state}}"
    ),
)
_SPEEDUP = Panel(
    title="Kernel speed-up of the canary",
    description="Mix-adjusted: both arms' times at one mix of batch sizes. The line is the claimed "
    "8 %. A running figure without an interval: the judge decides.",
    unit="none",
    line=CLAIM,
    queries=(
        Query(
            expr=_of("canary:moe_serve_kernel_speedup:ratio5m", _WHERE),
            legend="over {{over}}, pooled mix",
        ),
        Query(
            expr=_of("canary:moe_serve_kernel_speedup_equal_weights:ratio5m", _WHERE),
            legend="over {{over}}, equal weights",
        ),
    ),
)
_WINDOW_SPEEDUP = Panel(
    title="Forward-window speed-up of the canary",
    description="Measured, mix-adjusted, and what Amdahl's law makes of the kernel's gain.",
    unit="none",
    queries=(
        Query(expr=_of("canary:moe_serve_window_speedup:ratio5m", _WHERE), legend="over {{over}}"),
        Query(
            expr=_of("canary:moe_serve_window_speedup_predicted:ratio5m", _WHERE),
            legend="over {{over}}, predicted",
        ),
    ),
)
_CELL_SPEEDUP = Panel(
    title="Kernel speed-up per batch size",
    description="Stable's mean time over the canary's, at each size that both ran.",
    unit="none",
    line=CLAIM,
    queries=_one(
        f'track_cell:moe_serve_kernel_seconds:mean5m{{{_WHERE}, track="stable"}}'
        " / ignoring (track) "
        f'track_cell:moe_serve_kernel_seconds:mean5m{{{_WHERE}, track="canary"}}',
        "{{mode}} {{phase}} {{bucket}}",
    ),
)

DASHBOARDS: dict[str, tuple[str, Sequence[Panel]]] = {
    "overview": (
        "moe-serve: overview",
        (*_SAFETY, _KERNEL_RATE, _WASTE, _SHARE, _TOKENS, _LATENCY, _STEPS, _GRAPH_PADDING, _STATE),
    ),
    "kernel": (
        "moe-serve: fused-MoE kernel",
        (
            _MEAN, _CALLS, _SPREAD, _KERNEL_RATE, _ROOFLINE, _BYTES, _FLOPS, _WASTE,
            _GRAPH_PADDING, _EAGER, _OVERHEAD, _STATE,
        ),
    ),
    "canary": (
        "moe-serve: canary comparison",
        (
            *_SAFETY, _SPEEDUP, _WINDOW_SPEEDUP, _CELL_SPEEDUP, _KERNEL_RATE, _MEAN, _WASTE,
            _TOKENS, _LATENCY, _SHARE,
        ),
    ),
}  # fmt: skip


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"moe-serve-{name}",
        "title": title,
        "tags": ["moe-serve"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": [_panel(index, panel) for index, panel in enumerate(panels)],
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    for name, within in (
        ("namespace", ""),
        ("model", 'namespace=~"$namespace"'),
        ("track", _WHERE),
    ):
        query = f"label_values(moe_serve_source_up{{{within}}}, {name})"
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _datasource(),
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }


def _datasource() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def _panel(index: int, panel: Panel) -> dict[str, Any]:
    across = _COLUMNS // _WIDTH
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.line is not None:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
        steps = [{"color": "transparent", "value": None}, {"color": "green", "value": panel.line}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "id": index + 1,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": _datasource(),
        "gridPos": {
            "x": index % across * _WIDTH,
            "y": index // across * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [_target(number, panel, query) for number, query in enumerate(panel.queries)],
    }


def _target(number: int, panel: Panel, query: Query) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": _datasource(),
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": query.instant,
        "range": not query.instant,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check, stale = parser.parse_args().check, []
    for name in DASHBOARDS:
        path, text = FOLDER / f"{name}.json", json.dumps(dashboard(name), indent=2) + "\n"
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(text, "utf-8")
    if check and stale:
        sys.stderr.write(f"{', '.join(stale)} out of date: run `make docs`\n")
    return int(bool(check and stale))


if __name__ == "__main__":
    sys.exit(main())
