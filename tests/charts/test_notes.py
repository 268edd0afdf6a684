"""What moe-serve's notes tell after an install: how long an update takes, and what to beware of."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendering import CHARTS, render


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its notes as an object: without a cluster no command of Helm 3 tells them."""
    folder = tmp_path_factory.mktemp("notes") / "moe-serve"
    shutil.copytree(CHARTS / "moe-serve", folder)
    templates = folder / "templates"
    text = (templates / "NOTES.txt").read_text("utf-8")
    (templates / "_notes.tpl").write_text(f'{{{{ define "notes" }}}}{text}{{{{ end }}}}', "utf-8")
    told = 'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | toJson }}\n'
    (templates / "notes.yaml").write_text(told, "utf-8")
    return folder


def notes(chart: Path, **given: Any) -> str:
    """The notes; `__` in a name of a value is a dot."""
    values = {name.replace("__", "."): value for name, value in given.items()}
    text: str = render(chart, set=values).only("Notes")["text"]
    return text


# A step: 15 s of warning, 120 s of drain, 30 s to end; then 30 minutes of pull, and the start.
@pytest.mark.parametrize(
    ("given", "start", "steps", "total"),
    [
        ({}, 60, "2 steps of at most 93", 186),
        ({"startup__seconds": 1800}, 30, "2 steps of at most 63", 126),
        ({"startup__seconds": 7200, "replicas": 8}, 120, "8 steps of at most 153", 1222),
        ({"drain__seconds": 600, "replicas": 3}, 60, "3 steps of at most 101", 303),
        ({"replicas": 5, "rollout__maxUnavailable": 2}, 60, "3 steps of at most 93", 279),
    ],
    ids=["default", "half the startup", "twice it, eight pods", "a longer drain", "two at once"],
)
def test_the_notes_tell_how_long_an_update_may_take(
    chart: Path, given: dict[str, Any], start: int, steps: str, total: int
) -> None:
    text = notes(chart, **given)
    assert f"A start may take {start} minutes and the pull 30 before it;" in text
    assert f"an update is {steps} minutes:" in text
    assert f"rollout status deployment/gptoss-1-moe-serve --timeout {total}m\n" in text


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"model__source": "job"}, True),
        ({"model__source": "job", "model__job__checksums": {"a": "0" * 64}}, False),
        ({}, False),
    ],
    ids=["unchecked", "checked", "no job"],
)
def test_the_notes_warn_of_weights_that_nothing_verifies(
    chart: Path, given: dict[str, Any], warned: bool
) -> None:
    text = notes(chart, **given)
    assert ("WARNING: model.job.checksums is empty: nothing verifies the weights" in text) is warned


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ({}, "compiled kernels and the weights are gone with each pod"),
        ({"model__source": "job"}, "compiled kernels are gone with each pod"),
        ({"cache__type": "claim", "cache__claim__name": "c"}, None),
        ({"gpu__count": 0}, None),
    ],
    ids=["hub", "job", "claim", "no GPU"],
)
def test_the_notes_say_what_an_emptydir_loses(
    chart: Path, given: dict[str, Any], lost: str | None
) -> None:
    text = notes(chart, **given)
    assert ("NOTE: cache.type is emptyDir" in text) is (lost is not None)
    assert lost is None or lost in text
