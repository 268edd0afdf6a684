"""Plots of the gain over time and by batch size."""

import math
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moe_serve.analysis.estimate import CellEstimate, Estimate, NoEstimate
from moe_serve.analysis.series import CellKind
from moe_serve.report.data import Chapter
from moe_serve.report.figures import (
    BOUND,
    GRID,
    KERNEL,
    MARGIN,
    MUTED,
    STEP,
    SURFACE,
    Caption,
    canvas,
    house_style,
    inline,
)
from moe_serve.report.published import Published
from moe_serve.report.wording import MINUS, percent, rate

COLOURS = {CellKind.STEP: STEP, CellKind.KERNEL: KERNEL}
NAMES = {CellKind.STEP: "Engine step", CellKind.KERNEL: "MoE kernel"}
# Up to _FEW batch sizes each dot has its number; of more sizes, about _TICKS are named.
_FEW, _TICKS = 8, 16
_PERCENT = FuncFormatter(lambda value, _: f"{value:+g}%".replace("-", MINUS) if value else "0%")


def _gain(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)


@house_style
def over_time(chapter: Chapter, name: str) -> Markup:
    """A plot of each block's gain, and of the estimate so far with its interval."""
    figure, axes = canvas(2, 3.3)
    axes[1].sharey(axes[0])
    for axis, found in zip(axes, (chapter.step, chapter.kernel), strict=True):
        _frame(axis, found, chapter)
        if isinstance(found, Estimate):
            _series(axis, found)
        else:
            _no_data(axis, found.reason)
    _lines(axes[1], chapter, margin=chapter.policy.primary is CellKind.KERNEL, bound=True)
    _lines(axes[0], chapter, margin=chapter.policy.primary is CellKind.STEP, bound=False)
    _headroom(axes[0])
    text = f"Engine step {_described(chapter.step)}. MoE kernel {_described(chapter.kernel)}."
    return inline(figure, Caption(name=name, title="Gain over time", text=text))


def _described(found: Estimate | NoEstimate) -> str:
    number, beside = rate(found)
    return f"{number}, {beside}"


def _frame(axis: Axes, found: Estimate | NoEstimate, chapter: Chapter) -> None:
    decides = " (this decides)" if found.kind is chapter.policy.primary else ""
    axis.set_title(f"{NAMES[found.kind]}{decides}")
    unit, _ = _time_unit(found)
    axis.set_xlabel(f"{unit} since the measurement began")
    _scale(axis)


def _time_unit(found: Estimate | NoEstimate) -> tuple[str, float]:
    """`seconds` or, where the measurement took long, `hours`, and how many seconds one has."""
    if isinstance(found, NoEstimate):
        return "seconds", 1.0
    span = found.series[-1].start_seconds - found.series[0].start_seconds
    return ("hours", 3600.0) if span > 7200 else ("seconds", 1.0)


def _scale(axis: Axes) -> None:
    axis.yaxis.set_major_formatter(_PERCENT)
    axis.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.grid(axis="y")
    axis.axhline(0, color=MUTED, linewidth=0.9)
    axis.tick_params(length=0)


def _series(axis: Axes, found: Estimate) -> None:
    colour = COLOURS[found.kind]
    start, (_, unit) = found.series[0].start_seconds, _time_unit(found)
    at = [(point.start_seconds - start) / unit for point in found.series]
    seen = [
        (x, point.theta)
        for x, point in zip(at, found.series, strict=True)
        if point.theta is not None
    ]
    axis.plot(
        [x for x, _ in seen],
        [_gain(theta) for _, theta in seen],
        linestyle="none",
        marker="o",
        markersize=4,
        color=colour,
        alpha=0.55,
        markeredgewidth=0,
    )
    running = [
        (x, point.running_theta, point.running_lo, point.running_hi)
        for x, point in zip(at, found.series, strict=True)
        if point.running_theta is not None
        and point.running_lo is not None
        and point.running_hi is not None
    ]
    times = [x for x, *_ in running]
    axis.fill_between(
        times,
        [_gain(lo) for _, _, lo, _ in running],
        [_gain(hi) for _, _, _, hi in running],
        color=colour,
        alpha=0.18,
        linewidth=0,
    )
    axis.plot(times, [_gain(theta) for _, theta, _, _ in running], color=colour, linewidth=2)
    _end(axis, times[-1], found, colour)


def _end(axis: Axes, at: float, found: Estimate, colour: str) -> None:
    """Draw the latest estimate with its interval."""
    gain = _gain(found.theta)
    axis.errorbar(
        [at],
        [gain],
        yerr=[[gain - _gain(found.lo)], [_gain(found.hi) - gain]],
        color=colour,
        linewidth=2,
        capsize=4,
        marker="o",
        markersize=6,
        markeredgecolor=SURFACE,
    )
    axis.annotate(
        percent(found.theta),
        (at, gain),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=10.5,
        fontweight="bold",
        annotation_clip=False,
    )
    low, high = axis.get_xlim()
    axis.set_xlim(low, high + 0.14 * (high - low))


def _lines(axis: Axes, chapter: Chapter, *, margin: bool, bound: bool) -> None:
    if margin:
        _line(axis, chapter.policy.log_margin, "margin", MARGIN, "--")
    if bound and chapter.byte_bound is not None:
        _line(axis, chapter.byte_bound, "byte bound", BOUND, ":")


def _line(axis: Axes, log_ratio: float, label: str, colour: str, style: str) -> None:
    axis.axhline(_gain(log_ratio), color=colour, linewidth=1.4, linestyle=style)
    axis.annotate(
        f"{label} {percent(log_ratio)}",
        (0.0, _gain(log_ratio)),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        color=colour,
        fontsize=8,
    )


def _headroom(axis: Axes) -> None:
    """Extend the axis upwards, for the labels above the lines."""
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.12 * (high - low))


def _no_data(axis: Axes, reason: str) -> None:
    axis.text(0.5, 0.6, "no data", transform=axis.transAxes, ha="center", fontsize=12, color=MUTED)
    axis.text(
        0.5, 0.48, reason, transform=axis.transAxes, ha="center", va="top", color=MUTED, wrap=True
    )


@house_style
def by_batch_size(chapter: Chapter, name: str) -> Markup:
    """A plot of both gains at each exact batch size, beside the published ratios if given."""
    if chapter.published:
        figure, (axis, beside) = canvas(2, 3.1, (2.2, 1.0))
        beside.sharey(axis)
        _published(beside, chapter.published)
    else:
        figure, (axis,) = canvas(1, 3.1)
    groups = [
        found.buckets for found in (chapter.kernel, chapter.step) if isinstance(found, Estimate)
    ]
    buckets = sorted({entry.cell.bucket for group in groups for entry in group})
    few = len(buckets) <= _FEW
    _scale(axis)
    axis.set_title("Gain at each batch size")
    axis.set_xlabel("sequences in the batch")
    shown = range(0, len(buckets), 1 if few else 1 + len(buckets) // _TICKS)
    axis.set_xticks(shown, [str(buckets[at]) for at in shown])
    axis.set_xlim(-0.75, max(1, len(buckets)) - 0.25)
    for group, shift in zip(groups, (-0.09, 0.09), strict=False):
        _bars(axis, group, buckets, shift, labelled=few)
    if not groups:
        _no_data(axis, "neither the kernel nor the step has an estimate")
    _lines(axis, chapter, margin=True, bound=True)
    _headroom(axis)
    if groups:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    described = "; ".join(
        f"{entry.cell}: {percent(entry.theta)}" for group in groups for entry in group
    )
    return inline(
        figure, Caption(name=name, title="Gain by batch size", text=described or "no data")
    )


def _published(axis: Axes, ratios: Sequence[Published]) -> None:
    """Draw the published ratios by concurrency: one line per workload, without intervals."""
    _scale(axis)
    axis.set_title("Published (vLLM#42098)", loc="left")
    axis.set_xlabel("concurrency")
    sizes = sorted({ratio.concurrency for ratio in ratios})
    axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axis.set_xlim(-0.5, len(sizes) - 0.1)
    for workload, marker in zip(
        sorted({ratio.workload for ratio in ratios}), ("D", "v"), strict=False
    ):
        own = [ratio for ratio in ratios if ratio.workload == workload]
        at = [sizes.index(ratio.concurrency) for ratio in own]
        gains = [_gain(ratio.log_ratio) for ratio in own]
        axis.plot(at, gains, marker=marker, markersize=5, linewidth=1, color=MUTED)
        axis.annotate(
            workload,
            (at[-1], gains[-1]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            color=MUTED,
            fontsize=8,
        )


def _bars(
    axis: Axes,
    group: Sequence[CellEstimate],
    buckets: Sequence[int],
    shift: float,
    *,
    labelled: bool,
) -> None:
    kind = group[0].cell.kind
    gains = [_gain(entry.theta) for entry in group]
    at = [buckets.index(entry.cell.bucket) + shift for entry in group]
    axis.errorbar(
        at,
        gains,
        yerr=[
            [gain - _gain(entry.lo) for gain, entry in zip(gains, group, strict=True)],
            [_gain(entry.hi) - gain for gain, entry in zip(gains, group, strict=True)],
        ],
        linestyle="none",
        marker="o" if kind is CellKind.KERNEL else "s",
        markersize=7 if labelled else 4,
        markeredgecolor=SURFACE,
        color=COLOURS[kind],
        ecolor=COLOURS[kind],
        elinewidth=2 if labelled else 1,
        capsize=4 if labelled else 0,
        label=NAMES[kind],
    )
    for x, gain, entry in zip(at, gains, group, strict=True) if labelled else ():
        axis.annotate(
            percent(entry.theta),
            (x, gain),
            xytext=(8 if shift > 0 else -8, 0),
            textcoords="offset points",
            ha="left" if shift > 0 else "right",
            va="center",
            color=COLOURS[kind],
            fontsize=8.5,
        )
    axis.plot([], [], color=GRID)
