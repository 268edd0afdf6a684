import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.finding import QualityFinding, finding
from moe_serve.quality.result import NoQuality
from moe_serve.report import tables
from moe_serve.report.data import ReportData
from moe_serve.report.page import page
from moe_serve.report.summary import summary
from moe_serve.report.wording import conclusion, percent
from tests.testing.histories import Fleet
from tests.testing.probed import examined
from tests.testing.samples import compared, report

HOSTILE = "<script>alert(\"x\")</script> & 'q' `| [a](javascript:b)\n# head"
VOID = frozenset({"meta", "br"})


class Reader(HTMLParser):
    """Checks that tags are balanced, and gathers ids, loads and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src", "xlink:href") and value:
                self.references.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def data() -> ReportData:
    return report()


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return page(data)


def test_tags_are_balanced_and_ids_unique(html: str) -> None:
    reader = read(html)
    assert len(reader.ids) == len(set(reader.ids))


def test_the_page_loads_nothing(html: str) -> None:
    reader = read(html)
    assert all(reference.startswith("#") for reference in reader.references)
    assert {reference[1:] for reference in reader.references} <= set(reader.ids)
    assert reader.tags.isdisjoint({"script", "link", "img", "iframe", "image", "object"})
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_figures_use_only_the_pages_own_colours(html: str) -> None:
    figures = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.search(r"(?:fill|stroke): #", figures)
    assert figures.count('role="img"') == figures.count("<svg") == 8


def test_ids_in_figures_lead_somewhere(html: str) -> None:
    ids = set(read(html).ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= ids


def test_the_same_data_gives_the_same_page(data: ReportData, html: str) -> None:
    assert page(data) == html


def test_every_number_stands_on_the_page_and_in_the_summary(data: ReportData, html: str) -> None:
    text, markdown = " ".join(read(html).text), summary(data)
    for shown in data.chapters:
        numbers = [f"{shown.canary.neurons_lost} of {shown.canary.neurons_live}"]
        for found in (shown.step, shown.kernel):
            assert isinstance(found, Estimate)
            numbers += [percent(value) for value in (found.theta, found.lo, found.hi)]
            numbers += [percent(entry.theta) for entry in found.buckets]
        if isinstance(shown.quality, QualityFinding):
            numbers.append(f"{shown.quality.number:.3g}")
        if shown.byte_bound is not None:
            numbers.append(percent(shown.byte_bound))
        for number in numbers:
            assert number in text
            assert number in markdown
        for point in tables.over_time(shown).rows:
            assert point[2] in text


def test_the_first_screen_says_what_matters(html: str) -> None:
    text = " ".join(read(html).text)
    for words in ("1 of 3 canaries may be promoted.", "PROMOTE", "ROLL BACK", "not proven here"):
        assert words in text


def test_hostile_text_stays_text(data: ReportData) -> None:
    first = data.chapters[0]
    bad = replace(
        first,
        title=HOSTILE,
        note=HOSTILE,
        canary=replace(
            first.canary,
            name=HOSTILE,
            pads=((HOSTILE, HOSTILE),),
            facts=((HOSTILE, HOSTILE),),
        ),
        circumstances=((HOSTILE, HOSTILE),),
        judgement=replace(first.judgement, reason=HOSTILE),
        quality=NoQuality(reason=HOSTILE),
    )
    hostile = ReportData(
        title=HOSTILE,
        created=HOSTILE,
        chapters=(bad,),
        note=HOSTILE,
        machine=((HOSTILE, HOSTILE),),
        not_proven=(HOSTILE,),
        commands=(HOSTILE,),
    )
    reader = read(page(hostile))
    assert "script" not in reader.tags
    assert any(HOSTILE in part for part in reader.text)
    prose = [line for line in summary(hostile).splitlines() if not line.startswith("    ")]
    assert not any("<script" in line.replace("\\<", "") for line in prose)
    assert "# head" not in prose


def test_a_comparison_without_data_still_makes_a_page() -> None:
    empty, _ = compared("nothing", Fleet(silent="canary"), NoQuality(reason="none"))
    text = " ".join(read(page(ReportData(title="t", created="now", chapters=(empty,)))).text)
    assert "no data" in text
    assert "INVALID" in text


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Verdict.PROMOTE, "Promote: faster, and the same answers."),
        (Verdict.ROLLBACK, "Roll back: keep the stable image."),
        (Verdict.KEEP_GOING, "Keep going: not decided yet."),
        (Verdict.INVALID, "Invalid: the comparison cannot be trusted."),
    ],
)
def test_one_chapters_verdict_is_the_conclusion(
    data: ReportData, verdict: Verdict, sentence: str
) -> None:
    first = data.chapters[0]
    one = replace(first, judgement=replace(first.judgement, verdict=verdict))
    assert conclusion((one,)) == sentence


def test_right_answers_of_a_task_are_a_table() -> None:
    quality = finding(examined(items=500, margin=0.02))
    made, _ = compared("task", Fleet(), quality)
    table = tables.answers(quality)
    assert table is not None
    assert table.rows == (("baseline", "450", "500", "90.0%"), ("canary", "450", "500", "90.0%"))
    html = page(ReportData(title="t", created="now", chapters=(made,)))
    assert table.caption in " ".join(read(html).text)


def test_a_report_without_chapters_says_so() -> None:
    assert "Nothing was compared." in page(ReportData(title="t", created="now", chapters=()))
