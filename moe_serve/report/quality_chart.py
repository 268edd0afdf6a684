"""A plot of how much farther the canary's answers lie from the reference than stable's."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality
from moe_serve.report.figures import KERNEL, MARGIN, NOISE, Caption, canvas, house_style, inline
from moe_serve.report.wording import answers

# Linear below this many nats per token, logarithmic above, so that 0 has a place.
_LINEAR_NATS = 1e-4


@house_style
def by_cell(quality: QualityFinding | NoQuality, name: str) -> Markup | None:
    """One interval per cell (prefill or decode, at one concurrency), in nats per token.

    None where the answers were not compared by log-probabilities.
    """
    cells = [] if isinstance(quality, NoQuality) else quality.body.get("cells")
    if isinstance(quality, NoQuality) or not isinstance(cells, list) or not cells:
        return None
    figure, (axis,) = canvas(1, 0.9 + 0.32 * len(cells))
    _cells(axis, cells, quality.allowed)
    text = ": ".join(answers(quality))
    return inline(figure, Caption(name=name, title="Answers compared", text=text))


def _cells(axis: Axes, cells: Sequence[Mapping[str, Any]], allowed: float) -> None:
    axis.set_title("Excess divergence from the reference")
    axis.set_xscale("symlog", linthresh=_LINEAR_NATS)
    for number, cell in enumerate(cells):
        excess, lower, upper = (cell.get(key) for key in ("excess_nats", "lower", "upper"))
        if excess is not None:
            below = 0.0 if lower is None else excess - lower
            above = 0.0 if upper is None else upper - excess
            axis.errorbar(
                [excess], [number], xerr=[[below], [above]], color=KERNEL, marker="o",
                markersize=5, capsize=4, linewidth=2, label="canary" if number == 0 else None,
            )  # fmt: skip
        if (floor := cell.get("floor_nats")) is not None:
            axis.plot(
                [floor], [number], marker="d", markersize=5, linestyle="none", color=NOISE,
                label="noise floor" if number == 0 else None,
            )  # fmt: skip
    labels = [f"{cell['path']}, concurrency {cell['concurrency']}" for cell in cells]
    axis.set_yticks(range(len(cells)), labels)
    axis.set_ylim(len(cells) - 0.5, -0.5)
    axis.set_xlabel("nats per token")
    axis.grid(axis="x")
    axis.tick_params(length=0, which="both")
    axis.axvline(
        allowed, color=MARGIN, linewidth=1.4, linestyle="--", label=f"allowed: {allowed:g}"
    )
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
