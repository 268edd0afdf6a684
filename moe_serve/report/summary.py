"""The report as Markdown, for a pull request or a terminal."""

from moe_serve.report import tables
from moe_serve.report.data import Chapter, ReportData
from moe_serve.report.tables import Table
from moe_serve.report.wording import (
    answers,
    bound,
    conclusion,
    headline,
    neurons,
    rate,
    sentence,
)


def summary(data: ReportData) -> str:
    """The Markdown text: the page without its plots."""
    lines = [f"# {_plain(data.title)}", "", f"**{conclusion(data.chapters)}**", ""]
    if data.note:
        lines += [_plain(data.note), ""]
    for chapter in data.chapters:
        lines += _chapter(chapter)
    if data.not_proven:
        lines += ["## What was not proven here", ""]
        lines += [f"- {_plain(line)}" for line in data.not_proven] + [""]
    lines += _circumstances(data)
    return "\n".join([*lines, f"Written {_plain(data.created)} by moe-serve.", ""])


def _chapter(chapter: Chapter) -> list[str]:
    found = headline(chapter.judgement.verdict)
    (step, step_note), (kernel, kernel_note) = rate(chapter.step), rate(chapter.kernel)
    result, why = answers(chapter.quality)
    lines = [
        f"## {found.sign} {found.text}: {_plain(chapter.title)}",
        "",
        _plain(sentence(chapter.judgement.reason)),
        "",
        f"- engine step: **{step}** ({_plain(step_note)})",
        f"- MoE kernel: **{kernel}** ({_plain(kernel_note)}); byte bound {bound(chapter)}",
        f"- answers: **{result}** ({_plain(why)})",
        f"- neurons lost by the canary: **{neurons(chapter.canary)}**",
        "",
    ]
    compared = tables.answers(chapter.quality)
    for found_table in (tables.arms(chapter), tables.by_cell(chapter), compared):
        lines += _table(found_table) if found_table is not None else []
    if chapter.circumstances:
        lines += _table(tables.pairs("The comparison", chapter.circumstances))
    return [*lines, *_table(tables.checks(chapter))]


def _circumstances(data: ReportData) -> list[str]:
    lines = ["## Where and how", ""]
    if data.calibration:
        lines += _table(tables.calibration(data.calibration))
    for caption, facts in (
        ("The machine", data.machine),
        ("Seeds", data.seeds),
    ):
        lines += _table(tables.pairs(caption, facts)) if facts else []
    if data.commands:
        # Indented code needs no fence that a command could close.
        lines += [f"    {line}" for command in data.commands for line in command.splitlines()]
        lines += [""]
    return lines


def _table(found: Table) -> list[str]:
    rows = [found.head, tuple("---" for _ in found.head), *found.rows]
    written = ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
    return [_plain(found.caption), "", *written, ""]


def _plain(text: str) -> str:
    """The text on one line, with Markdown's and HTML's special characters escaped."""
    flat = " ".join(text.split()).replace("\\", "\\\\")
    for character in "`*_[]<>|":
        flat = flat.replace(character, f"\\{character}")
    return flat
