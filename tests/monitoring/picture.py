"""Draw a dashboard's panels from Prometheus's own answers: a picture of what Grafana would show."""

import json
from pathlib import Path
from typing import Any

from tests.monitoring.server import DASHBOARDS, Prometheus, filled

_UNITS = {"percentunit": (100.0, "%"), "s": (1e3, "ms"), "Bps": (1e-12, "TB/s")}
_COLUMNS = 3
_LEGENDS = 12


def draw(server: Prometheus, path: Path, *, start: float, end: float, name: str = "canary") -> None:
    """Every panel of one dashboard that is a graph, as one PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    board = json.loads((DASHBOARDS / f"{name}.json").read_text("utf-8"))
    graphs = [panel for panel in board["panels"] if panel["type"] == "timeseries"]
    rows = -(-len(graphs) // _COLUMNS)
    figure, axes = plt.subplots(
        rows, _COLUMNS, figsize=(5.5 * _COLUMNS, 3.4 * rows), layout="tight", squeeze=False
    )
    for axis, panel in zip(axes.flat, graphs, strict=False):
        _draw_panel(axis, panel, server, start, end)
    for axis in axes.flat[len(graphs) :]:
        axis.set_axis_off()
    figure.suptitle(board["title"])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_panel(axis: Any, panel: Any, server: Prometheus, start: float, end: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    factor, unit = _UNITS.get(defaults["unit"], (1.0, ""))
    for target in panel["targets"]:
        for series in server.query_range(filled(target["expr"]), start=start, end=end):
            legend = target["legendFormat"]
            for label, value in series["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            points = [(float(at) - start, float(value) * factor) for at, value in series["values"]]
            axis.plot(*zip(*points, strict=True), label=legend)
    for step in defaults.get("thresholds", {}).get("steps", ()):
        if step["value"] is not None:
            axis.axhline(step["value"] * factor, linestyle="--", color="tab:green")
    axis.set_title(panel["title"], fontsize=10)
    axis.set_ylabel(unit)
    axis.grid(visible=True, alpha=0.3)
    if 0 < len(axis.lines) <= _LEGENDS:
        axis.legend(fontsize=6)
