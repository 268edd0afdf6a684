"""Run the demo from its settings to its exit code."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from moe_serve_demo.pages import write_report
from moe_serve_demo.scenarios import SCENARIOS
from moe_serve_demo.screen import Screen
from moe_serve_demo.settings import DemoSettings
from moe_serve_demo.story import Story


def run_demo(
    *,
    scenario: str,
    report: Path,
    cache: Path,
    vllm_python: Path,
    port: int,
    keep: bool,
    environment: Mapping[str, str],
) -> int:
    """Tell `scenario` and write its report; 0 if every verdict is as expected, 1 if not."""
    settings = DemoSettings(
        chapters=SCENARIOS[scenario],
        report=report,
        cache=cache,
        vllm_python=vllm_python,
        port=port,
        keep=keep,
        environment=environment,
    )
    screen = Screen(Console(highlight=False))
    story = Story(settings, screen)
    outcomes = story.tell()
    page = write_report(settings, story, outcomes)
    screen.title("Report")
    screen.done("written", str(page))
    if keep:
        screen.note(story.how_to_stop())
    for outcome in outcomes:
        if not outcome.expected:
            screen.warn(
                f"{outcome.chapter.name}: {outcome.judgement.verdict.value} is not what a sound "
                f"run ends with; the report and {story.work} hold the reasons"
            )
    return 0 if all(outcome.expected for outcome in outcomes) else 1
