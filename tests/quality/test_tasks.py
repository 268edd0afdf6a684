import json

import pytest

from moe_serve.errors import UsageError
from moe_serve.quality.tasks import arithmetic, formats, gsm8k, number


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("so 3 + 4 = 7\n#### 7", "7"),
        ("#### $1,234.00 in all, of 9", "1234"),
        ("The answer is -12.50.", "-12.5"),
        ("it costs 100", "100"),
        ("no idea", None),
    ],
)
def test_the_number_of_an_answer(text: str, wanted: str | None) -> None:
    assert number(text) == wanted


def test_gsm8k_reads_its_own_lines() -> None:
    rows = [{"question": f"{n} apples and 1?", "answer": f"add\n#### {n + 1},000"} for n in (1, 2)]
    task = gsm8k([json.dumps(row) for row in rows], source="test.jsonl")
    assert [item.answer for item in task.items] == ["2000", "3000"]
    assert task.right(task.items[0], "Let me think. 5.\n#### 2,000")
    assert not task.right(task.items[0], "#### 2001")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1"),
        (['{"question": "q"}'], "line 1"),
        (['{"question": "q", "answer": "7"}'], "does not end with"),
        ([], "0 items"),
    ],
)
def test_a_file_that_is_not_gsm8k_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gsm8k(lines, source="test.jsonl")


def test_fewer_items_than_planned_are_refused() -> None:
    line = json.dumps({"question": "q", "answer": "#### 1"})
    with pytest.raises(UsageError, match="1 items, 5 are needed"):
        gsm8k([line], source="test.jsonl", limit=5)


def test_built_in_tasks_are_seeded_distinct_and_mark_their_own_answers() -> None:
    for make in (arithmetic, formats):
        task = make(300, seed=4)
        assert task.digest == make(300, seed=4).digest != make(300, seed=5).digest
        assert len({item.prompt for item in task.items}) == 300
        assert all(task.right(item, f" {item.answer}\n") for item in task.items)
        assert not any(task.right(item, "#### x [1]") for item in task.items)
