"""How far the answers lie apart, prompt by prompt, beside the stable arm against itself."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import Agreement, Difference, NoQuality, QualityResult
from moe_serve.report.figures import (
    INK,
    KERNEL,
    MARGIN,
    MUTED,
    NOISE,
    SURFACE,
    Caption,
    canvas,
    house_style,
    inline,
)
from moe_serve.report.markup import Html
from moe_serve.report.wording import answers, nats, share

# A log scale has no zero: bit-identical prompts are drawn here, and the axis says so.
ZERO_NATS = 1e-7
CANARY_NAME, NOISE_NAME = "canary against stable", "stable against itself"
_Row = tuple[str, Difference, str]


@house_style
def panel(quality: QualityResult | QualityFinding | NoQuality, name: str) -> Html | None:
    """Differences by prompt on a log scale, and the share of identical greedy texts."""
    if not isinstance(quality, QualityResult):
        return None
    figure, (left, right) = canvas(2, 3.4, (1.75, 1.0))
    rows: list[_Row] = [
        (label, part, colour)
        for label, part, colour in (
            ("prefill\ncanary", quality.prefill, KERNEL),
            ("prefill\nnoise floor", quality.noise_prefill, NOISE),
            ("decode\ncanary", quality.decode, KERNEL),
            ("decode\nnoise floor", quality.noise_decode, NOISE),
        )
        if part is not None
    ]
    _strips(left, rows, quality.epsilon_nats)
    _greedy(right, quality)
    word, reason = answers(quality)
    caption = Caption(name=name, title="Answers compared", text=f"{word}: {reason}")
    return inline(figure, caption)


def _strips(axis: Axes, rows: Sequence[_Row], epsilon_nats: float) -> None:
    axis.set_title("How far apart: one dot a prompt")
    axis.set_xscale("log")
    values = [max(ZERO_NATS, e.mean_abs_nats) for _, part, _ in rows for e in part.per_prompt]
    axis.set_xlim(min([epsilon_nats, *values]) / 2, 3 * max([epsilon_nats, *values]))
    for number, (_, part, colour) in enumerate(rows):
        _strip(axis, number, part, colour)
    axis.set_ylim(len(rows) - 0.4, -1.05)
    axis.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axis.set_xlabel("mean |difference| of log-probabilities, nats a token")
    axis.grid(axis="x")
    axis.tick_params(length=0, which="both")
    axis.axvline(epsilon_nats, color=MARGIN, linewidth=1.4, linestyle="--")
    axis.annotate(
        f"allowed: {epsilon_nats:g}",
        (epsilon_nats, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        color=MARGIN,
        fontsize=8,
    )
    if any(value <= ZERO_NATS for value in values):
        ticks = [tick for tick in axis.get_xticks() if ZERO_NATS * 5 < tick <= axis.get_xlim()[1]]
        axis.set_xticks([ZERO_NATS, *ticks], ["exactly 0", *(f"{tick:g}" for tick in ticks)])
        axis.minorticks_off()


def _strip(axis: Axes, number: int, part: Difference, colour: str) -> None:
    entries = part.per_prompt
    axis.plot(
        [max(ZERO_NATS, entry.mean_abs_nats) for entry in entries],
        # Spread in a fixed zigzag, so that dots at one place stay countable.
        [number + 0.26 * ((position * 5) % 11 / 10 - 0.5) * 2 for position in range(len(entries))],
        linestyle="none",
        marker="o",
        markersize=4.5,
        markeredgewidth=0,
        color=colour,
        alpha=0.5,
    )
    axis.plot(
        [max(ZERO_NATS, part.mean_abs_nats)] * 2,
        [number - 0.38, number + 0.38],
        color=colour,
        linewidth=2.4,
    )
    axis.annotate(
        f"mean {nats(part.mean_abs_nats)}",
        (max(ZERO_NATS, part.mean_abs_nats), number - 0.38),
        xytext=(4, 1),
        textcoords="offset points",
        color=INK,
        fontsize=8,
    )


def _greedy(axis: Axes, quality: QualityResult) -> None:
    axis.set_title("Greedy texts that are identical")
    axis.set_xlim(0, 1)
    axis.spines["bottom"].set_visible(False)
    axis.set_xticks([])
    axis.tick_params(length=0)
    runs = [
        (label, agreement, colour)
        for label, part, colour in (
            ("canary", quality.decode, KERNEL),
            ("noise floor", quality.noise_decode, NOISE),
        )
        if part is not None
        for agreement in part.agreement
    ]
    runs.sort(key=lambda run: run[1].concurrency)
    if not runs:
        axis.text(0.5, 0.5, "no data", transform=axis.transAxes, ha="center", color=MUTED)
        axis.set_yticks([])
        return
    labels = [f"{label},\n{agreement.concurrency} at once" for label, agreement, _ in runs]
    axis.set_yticks(range(len(runs)), labels)
    axis.set_ylim(len(runs) - 0.4, -0.75)
    for number, (_, agreement, colour) in enumerate(runs):
        _bar(axis, number, agreement, colour)


def _bar(axis: Axes, number: int, agreement: Agreement, colour: str) -> None:
    axis.barh(number, 1, height=0.5, color=colour, alpha=0.12, linewidth=0)
    axis.barh(number, agreement.share, height=0.5, color=colour, alpha=0.85, linewidth=0)
    text = f"{agreement.identical} of {agreement.texts} ({share(agreement.share)})"
    if agreement.median_first_divergence is not None:
        text += f", others part after {agreement.median_first_divergence:g} tokens"
    axis.text(
        0.0,
        number - 0.31,
        text,
        color=INK,
        va="bottom",
        fontsize=8,
        backgroundcolor="none",
        zorder=3,
    )
    axis.plot([agreement.share] * 2, [number - 0.25, number + 0.25], color=SURFACE, linewidth=1)
