"""The demo's output while it runs: progress bars on a terminal, plain lines in a log."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.verdict import Verdict
from moe_serve.report.data import ArmSheet
from moe_serve.report.wording import neurons

_COLOURS = {
    Verdict.PROMOTE: "bold green",
    Verdict.ROLLBACK: "bold red",
    Verdict.KEEP_GOING: "bold yellow",
    Verdict.INVALID: "bold magenta",
}


class Bar:
    """A progress bar with a text behind it."""

    def __init__(self, progress: Progress, title: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, live="")

    def at(self, completed: float, live: str = "") -> None:
        """Set the bar's position and its text."""
        self._progress.update(self._task, completed=completed, live=live)


class Screen:
    """Prints to `console`; progress bars appear only on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def title(self, text: str) -> None:
        """Print a heading."""
        self.console.print()
        self.console.rule(f"[bold]{text}", align="left")

    def note(self, text: str) -> None:
        """Print a paragraph."""
        self.console.print(text, style="dim", highlight=False, soft_wrap=True)

    def done(self, what: str, detail: str) -> None:
        """Print a finished step and its result."""
        self.console.print(f"[green]✓[/] {what:<20} {detail}", highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(f"[yellow]! {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: float | None = None) -> Iterator[Bar]:
        """Show a progress bar while the `with` block runs."""
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

    def verdict(self, found: Findings) -> None:
        """Both rates, the answers' comparison, the verdict and its reason."""
        judgement = found.judgement
        colour = _COLOURS[judgement.verdict]
        quality = judgement.quality.get("reason", "not compared")
        for line in (
            f"  {describe_rate(found.estimates.kernel)}",
            f"  {describe_rate(found.estimates.step)}",
            f"  answers      {quality}",
            f"[{colour}]{judgement.verdict.value}[/]  {judgement.reason}",
        ):
            self.console.print(line, highlight=False, soft_wrap=True)


def describe_arm(arm: ArmSheet) -> str:
    """`policy aligned: pads 192/128 sent, no neuron lost, 1.013 of the bytes needed`."""
    pads = ", ".join(f"{value} {label}" for label, value in arm.pads) or "not known"
    lost = f"{neurons(arm)} neurons lost" if arm.neurons_lost else "no neuron lost"
    if arm.neurons_lost is None:
        lost = "lost neurons not known"
    fetched = "unknown" if arm.bytes_ratio is None else f"{arm.bytes_ratio:.3f} of the"
    return f"policy {arm.policy}: pads {pads}, {lost}, {fetched} bytes needed"


def describe_rate(rate: Estimate | NoEstimate) -> str:
    """`kernel rate  +11.2 %  (95 % interval +10.6 to +11.8 %, 9 blocks)`."""
    name = f"{rate.kind.value} rate".ljust(12)
    if isinstance(rate, NoEstimate):
        return f"{name} no estimate: {rate.reason}"
    return (
        f"{name} {percent(rate.theta)}  ({rate.confidence:.0%} interval {percent(rate.lo)} to "
        f"{percent(rate.hi)}, {rate.blocks} blocks)"
    )


def percent(log_ratio: float) -> str:
    """A log ratio of rates as a signed gain: `+8.2%`."""
    return f"{math.expm1(log_ratio):+.1%}"
