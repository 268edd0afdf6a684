"""Figures as inline SVG in the page's colours, with ids of their own."""

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders that `inline` replaces by the page's CSS variables, for light and dark themes.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
KERNEL, STEP, NOISE = "#040404", "#050505", "#060606"
MARGIN, BOUND, SURFACE = "#070707", "#080808", "#090909"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    KERNEL: "kernel",
    STEP: "step",
    NOISE: "noise",
    MARGIN: "margin",
    BOUND: "bound",
    SURFACE: "surface",
}
# Any: newer matplotlib types every key by name, older ones take str.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A figure's id on the page, its title, and its description for screen readers."""

    name: str
    title: str
    text: str


# A decorator for every function that draws: texts take their style when they are made.
house_style = mpl.rc_context(_STYLE)


def canvas(
    columns: int, height: float, ratios: tuple[float, ...] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width (inches) with its axes side by side, in the house style."""
    figure = Figure(figsize=(10.2, height), layout="constrained")
    grid = figure.subplots(1, columns, squeeze=False, width_ratios=ratios)
    return figure, list(grid[0])


def inline(figure: Figure, caption: Caption) -> Markup:
    """The figure as an `<svg>` element that loads nothing; equal figures give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": caption.name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", _opening(caption), text, count=1)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{caption.name}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{caption.name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return Markup(_described(text, caption))


def _opening(caption: Caption) -> str:
    labels = f"{caption.name}-title {caption.name}-desc"
    return rf'<svg \1 role="img" aria-labelledby="{labels}">'


def _described(text: str, caption: Caption) -> str:
    opening, rest = text.split(">", 1)
    return (
        f'{opening}><title id="{caption.name}-title">{escape(caption.title)}</title>'
        f'<desc id="{caption.name}-desc">{escape(caption.text)}</desc>{rest}'
    )
