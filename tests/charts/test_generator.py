"""What is generated for the charts: the schema, the table of losses, the copies."""

import json
from pathlib import Path

import pytest

from moe_serve.padding.versions import parse_version
from tools.charts import generate
from tools.charts.declarations import Undeclared, read
from tools.charts.padding_table import key, table
from tools.charts.schema import schema


def declared(folder: Path, text: str) -> dict[str, object]:
    path = folder / "values.yaml"
    path.write_text(text, "utf-8")
    found: dict[str, object] = json.loads(schema(read(path), title="t"))
    return found


def test_every_generated_file_of_the_charts_is_in_date():
    stale = [path.name for path, text in generate.pages() if path.read_text("utf-8") != text]
    assert stale == []


def test_a_group_takes_only_the_keys_that_it_declares(tmp_path):
    found = declared(tmp_path, "# About the group.\nimage:\n  # -- Its tag.\n  tag: ''\n")
    assert found["properties"] == {
        "image": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"tag": {"description": "Its tag.", "default": "", "type": "string"}},
            "required": ["tag"],
        }
    }
    assert found["additionalProperties"] is False


def test_a_comment_goes_on_over_lines_and_its_schema_line_is_no_part_of_it(tmp_path):
    text = "# -- How long,\n# in seconds.\n# @schema {minimum: 1}\nwait: 5\n"
    assert declared(tmp_path, text)["properties"] == {
        "wait": {
            "description": "How long, in seconds.", "default": 5, "type": "integer", "minimum": 1,
        }
    }  # fmt: skip


def test_global_values_may_have_keys_of_a_parent_chart(tmp_path):
    found = declared(tmp_path, "global:\n  # -- Registry.\n  imageRegistry: ''\n")
    assert found["properties"]["global"]["additionalProperties"] is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wait: 5\n", "wait has no '# --' comment"),
        ("drain:\n  # A remark.\n  seconds: 5\n", "drain.seconds has no '# --' comment"),
        ("# -- Why.\n# @schema no mapping\nwait: 5\n", "wait: its '# @schema' is no mapping"),
    ],
)
def test_a_value_without_a_readable_comment_is_named(tmp_path, text, said):
    with pytest.raises(Undeclared) as raised:
        declared(tmp_path, text)
    assert said in str(raised.value)


def answers(aiter, ksplit="default"):
    """The newest vLLM's answers with one AITER, by its key in the table."""
    found = json.loads(table())
    newest = found["vllm"][max(found["vllm"])]
    return found["answers"][newest][aiter][ksplit]


def test_the_table_says_what_the_rule_of_42098_loses_at_one_gpu_and_at_eight():
    pinned = answers("0.1.18")
    assert pinned["tp1 dp1"]["rounded"] == pytest.approx(192 / 2880, abs=1e-4)
    assert pinned["tp8 dp1"]["rounded"] == pytest.approx(104 / 360, abs=1e-4)
    assert {each["aligned"] for each in pinned.values()} == {0.0}


def test_the_table_never_tells_less_than_what_is_lost():
    pinned = answers("0.1.18")
    assert pinned["tp1 dp1"]["rounded"] >= 192 / 2880
    assert pinned["tp8 dp1"]["rounded"] >= 104 / 360


def test_a_rule_that_no_budget_covers_has_no_number():
    assert answers("0.1.15")["tp1 dp1"]["raw"] == "uninitialised-read"


def test_the_gelu_fault_is_in_every_answer_until_splits_are_forbidden():
    assert {a for each in answers("0.1.12").values() for a in each.values()} == {"split-k-gelu"}
    assert {each["aligned"] for each in answers("0.1.12", "ksplit1").values()} == {0.0}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.13", "00000.00001.00013.00000"),
        ("0.1.13.post1", "00000.00001.00013.00002"),
        ("0.33", "00000.00033.00000.00000"),
    ],
)
def test_a_releases_key_has_four_numbers_of_equal_width(version, expected):
    assert key(parse_version(version, what="test")) == expected
