"""HTML by construction: text is escaped unless it is already HTML."""

from collections.abc import Iterable, Sequence
from html import escape

_VOID = frozenset({"meta", "br"})


class Html(str):
    """Text that is HTML already; anything else is escaped when it enters a tag."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | None) -> Html:
    """An element. `class_` gives `class`, `aria_label` gives `aria-label`; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Children one after another, each escaped unless it is HTML."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> Html:
    """A table whose first column names the rows."""
    header = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    )
    whole = tag("table", tag("caption", caption), tag("thead", header), tag("tbody", *body))
    return tag("div", whole, class_="scroll")


def more(summary: str, *children: str) -> Html:
    """A part that is folded until asked for."""
    return tag("details", tag("summary", summary), *children)
