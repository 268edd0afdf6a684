"""A newer chart with the last release's values starts no pod anew, unless its version says so."""

import difflib
import re

import pytest

from tests.charts.released import (
    Pod,
    chart_version,
    may_restart,
    recorded,
    refused,
    template,
)
from tests.charts.rendering import CHARTS

VERSION, PODS = recorded()


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.name)
def test_the_last_releases_values_make_the_last_releases_pods(pod: Pod) -> None:
    now = template(pod.values)
    if may_restart(VERSION, chart_version()):
        return  # said by the version; the test below wants it said in the README too
    changed = "\n".join(difflib.unified_diff(pod.template.splitlines(), now.splitlines(), n=1))
    assert not changed, f"an update from {VERSION} would start these pods anew:\n{changed}"


def test_a_version_that_starts_pods_anew_says_so_where_upgrades_are_explained() -> None:
    readme = (CHARTS / "moe-serve" / "README.md.in").read_text("utf-8")
    [section] = re.findall(r"^## Upgrading\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    if may_restart(VERSION, chart_version()):
        assert f"`{chart_version()}`" in section
    assert PODS


@pytest.mark.parametrize(
    ("before", "after", "restarts"),
    [
        ("0.1.0", "0.1.0", False),
        ("0.1.0", "0.1.7", False),
        ("0.1.0", "0.2.0", True),
        ("1.1.0", "1.2.0", False),
        ("1.9.0", "2.0.0", True),
    ],
)
def test_only_a_version_that_may_break_something_may_start_pods_anew(
    before: str, after: str, restarts: bool
) -> None:
    assert may_restart(before, after) is restarts


def test_what_is_released_is_never_recorded_anew() -> None:
    open_, closed = "## 0.1.0 - unreleased\n", "## 0.1.0 - 2026-11-30\n"
    assert refused(open_, "0.1.0", "0.1.0", release=False) is None
    assert "is released" in (refused(closed, "0.1.0", "0.1.0", release=True) or "")
    assert "compared with" in (refused(closed, "0.1.0", "0.1.1", release=False) or "")
    assert refused(closed, "0.1.0", "0.1.1", release=True) is None
