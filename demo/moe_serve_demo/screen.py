"""What the demo shows while it runs: steps, waiting servers, live numbers, verdicts.

On a terminal the lines move; in a log they are printed once each, when there is news.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.verdict import Judgement, Verdict

_COLOURS = {
    Verdict.PROMOTE: "bold green",
    Verdict.ROLLBACK: "bold red",
    Verdict.KEEP_GOING: "bold yellow",
    Verdict.INVALID: "bold magenta",
}


class Bar:
    """One moving line, with a text that can change."""

    def __init__(self, progress: Progress, title: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, live="")

    def at(self, completed: float, live: str = "") -> None:
        """Move the bar and replace its text."""
        self._progress.update(self._task, completed=completed, live=live)


class Screen:
    """Prints to `console`; moving lines appear only where it is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def title(self, text: str) -> None:
        """A heading."""
        self.console.print()
        self.console.rule(f"[bold]{text}", align="left")

    def note(self, text: str) -> None:
        """A paragraph."""
        self.console.print(text, style="dim", highlight=False, soft_wrap=True)

    def done(self, what: str, detail: str) -> None:
        """A step that is over, with what came of it."""
        self.console.print(f"[green]✓[/] {what:<20} {detail}", highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Something that the reader must not miss."""
        self.console.print(f"[yellow]! {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: float | None = None) -> Iterator[Bar]:
        """A moving line for as long as the block lasts."""
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[live]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        if not self.console.is_terminal:
            self.console.print(f"  {title} ...", highlight=False, soft_wrap=True)
        with progress:
            yield Bar(progress, title, total)

    def judgement(self, judgement: Judgement, rates: Sequence[Estimate | NoEstimate]) -> None:
        """The verdict, what was measured, and why."""
        for rate in rates:
            self.console.print(f"  {describe(rate)}", highlight=False, soft_wrap=True)
        quality = judgement.quality.get("reason", "not compared")
        self.console.print(f"  answers      {quality}", highlight=False, soft_wrap=True)
        colour = _COLOURS[judgement.verdict]
        self.console.print(
            f"[{colour}]{judgement.verdict.value}[/]  {judgement.reason}",
            highlight=False,
            soft_wrap=True,
        )


def describe(rate: Estimate | NoEstimate) -> str:
    """`kernel rate  +11.2 %  (95 % interval +10.6 to +11.8 %, 9 blocks)`."""
    name = f"{rate.kind.value} rate".ljust(12)
    if isinstance(rate, NoEstimate):
        return f"{name} no estimate: {rate.reason}"
    return (
        f"{name} {percent(rate.theta)}  ({rate.confidence:.0%} interval {percent(rate.lo)} to "
        f"{percent(rate.hi)}, {rate.blocks} blocks)"
    )


def percent(log_ratio: float) -> str:
    """A log ratio of rates as a signed gain in percent."""
    return f"{math.expm1(log_ratio):+.1%}"
