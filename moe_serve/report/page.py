"""One self-contained HTML file: it loads nothing, and opens from a disk as from a server."""

from importlib import resources

from moe_serve.report import tables
from moe_serve.report.chapter import card, section
from moe_serve.report.data import ReportData
from moe_serve.report.markup import Html, join, more, table, tag
from moe_serve.report.tables import Table
from moe_serve.report.wording import conclusion

# The page may load nothing at all; style and figures stand in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(data: ReportData) -> str:
    """The report as HTML, the same text for the same data."""
    numbered = list(enumerate(data.chapters, start=1))
    body = tag(
        "body",
        _top(data),
        tag(
            "main",
            tag("div", *(card(chapter, number) for number, chapter in numbered), class_="cards"),
            *(section(chapter, number) for number, chapter in numbered),
            _not_proven(data),
            _circumstances(data),
            tag("footer", f"Written {data.created} by moe-serve."),
        ),
    )
    return "<!doctype html>\n" + tag("html", _head(data), body, lang="en") + "\n"


def _head(data: ReportData) -> Html:
    css = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", data.title),
        tag("style", Html(css)),
    )


def _top(data: ReportData) -> Html:
    return tag(
        "header",
        tag("h1", data.title),
        tag("p", conclusion(data.chapters), class_="lead"),
        tag("p", data.note, class_="muted") if data.note else Html(""),
        class_="top",
    )


def _not_proven(data: ReportData) -> Html:
    if not data.not_proven:
        return Html("")
    items = tag("ul", *(tag("li", line) for line in data.not_proven))
    return tag("section", tag("h2", "What was not proven here"), items, class_="plain")


def _circumstances(data: ReportData) -> Html:
    known: list[Table] = []
    if data.calibration:
        known.append(tables.calibration(data.calibration))
    if data.machine:
        known.append(tables.pairs("The machine", data.machine))
    if data.comparison:
        known.append(tables.pairs("The comparison", data.comparison))
    if data.seeds:
        known.append(tables.pairs("Seeds and fixed choices", data.seeds))
    shown = [table(found.head, found.rows, found.caption) for found in known]
    if data.commands:
        shown.append(
            more("Commands and queries to repeat it", tag("pre", "\n".join(data.commands)))
        )
    if not shown:
        return Html("")
    return tag("section", tag("h2", "Where and how"), join(shown), class_="plain")
