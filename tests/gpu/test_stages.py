"""The stages' own logic, without a GPU: the witness, redaction, resuming, limits."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tools.gpu import driver as driving
from tools.gpu import place, stages
from tools.gpu.stages import STAGES, Stage
from tools.gpu.stages.counts import Witness


def test_witness_tells_graphs_pieces_and_eager_batches_apart() -> None:
    """Which graph, or which eager batch, each kind of step must be counted in."""
    witness = Witness()
    witness.steps = [(1, 1), (5, 1), (8, 1), (70, 1), (300, 295)]

    assert witness.expected((1, 8, 64)) == Counter(
        {
            ("FULL", "DECODE", 1): 1,
            ("FULL", "DECODE", 8): 2,
            ("EAGER", "DECODE", 128): 1,
            ("EAGER", "MIXED", 512): 1,
        }
    )
    pieces = witness.expected((1, 8, 64, 512), pieces=True)
    assert pieces["PIECEWISE", "ANY", 512] == 1
    assert pieces["FULL", "DECODE", 512] == 1


def test_witness_takes_a_drafters_tokens_for_decode() -> None:
    """With two drafted tokens a request brings three to a decode step."""
    witness = Witness()
    witness.steps = [(6, 3), (6, 4)]

    assert witness.expected((6, 24), width=3) == Counter(
        {("FULL", "DECODE", 6): 1, ("EAGER", "MIXED", 6): 1}
    )


def test_redaction_leaves_no_address_path_or_host() -> None:
    """Numbers and names of software stay; where things are does not."""
    accept = pytest.importorskip("tools.gpu.stages.accept")
    import os

    found = accept.redacted(
        {
            "said": f"http://10.1.2.3:8000/v1 of {os.uname().nodename} in /dev/shm/moe/a.record",
            "address": ["192.168.0.7:9400"],
            "number": 1.5,
            "versions": "0.26.0",
        }
    )

    text = json.dumps(found)
    for secret in ("10.1.2.3", "192.168", os.uname().nodename, "/dev/shm", "http:"):
        assert secret not in text
    assert found["number"] == 1.5
    assert found["versions"] == "0.26.0"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver whose stages are small Python programs."""
    monkeypatch.setattr(place, "WORK", tmp_path / "work")
    monkeypatch.setattr(place, "SITE", tmp_path / "site")
    module = ModuleType("tools.gpu.stages.small")
    monkeypatch.setitem(sys.modules, "tools.gpu.stages.small", module)
    programs = tmp_path / "site" / "sitecustomize.py"
    programs.parent.mkdir()
    programs.write_text(
        "import sys, types, time, os\n"
        "m = types.ModuleType('tools.gpu.stages.small')\n"
        "def good():\n    return {'answer': 42, 'pid': os.getpid()}\n"
        "def bad():\n    raise ValueError('why it is bad')\n"
        "def slow():\n    time.sleep(60)\n"
        "m.good, m.bad, m.slow = good, bad, slow\n"
        "sys.modules['tools.gpu.stages.small'] = m\n"
        "from tools.gpu import stages as s\n"
        "for n in ('good', 'bad', 'slow'):\n    s.STAGES[n] = s.Stage('small', n, 5)\n"
    )
    for name, seconds in (("good", 30.0), ("bad", 30.0), ("slow", 1.0)):
        monkeypatch.setitem(STAGES, name, Stage("small", name, seconds))
    return driving.Driver(tmp_path / "out", again=False, deadline=None)


def documents(driver: Any) -> dict[str, Any]:
    """What the run left to be fetched."""
    found: dict[str, Any] = json.loads((driver.out / "results.json").read_text("utf-8"))
    return found


def test_a_stage_leaves_its_document_and_is_not_run_again(driver: Any) -> None:
    """The second run of the same source takes the first one's result; `again` does not."""
    assert driver.run(["good"])
    first = documents(driver)["good"]
    assert first["found"]["answer"] == 42
    assert driver.run(["good"])
    assert documents(driver)["good"]["found"]["pid"] == first["found"]["pid"]

    driver.again = True
    assert driver.run(["good"])
    assert documents(driver)["good"]["found"]["pid"] != first["found"]["pid"]


def test_a_stage_that_fails_says_why_and_the_others_go_on(driver: Any) -> None:
    """One bad stage makes the run bad, and hides nothing of the good ones."""
    assert not driver.run(["bad+good"])
    found = documents(driver)
    assert found["bad"]["reason"] == "ValueError: why it is bad"
    assert found["good"]["ok"]


def test_a_stage_that_hangs_is_ended_at_its_limit(driver: Any) -> None:
    """A limit is kept, and the document says so."""
    assert not driver.run(["slow"])
    assert "its limit" in documents(driver)["slow"]["reason"]


def test_an_unknown_stage_is_named(driver: Any) -> None:
    """A misspelt stage is an error before anything runs."""
    from moe_serve.errors import UsageError

    with pytest.raises(UsageError, match="stage nothing"):
        driver.run(["nothing"])


def test_every_stage_names_a_function_that_is_there() -> None:
    """The table of stages and the modules agree."""
    import ast

    folder = Path(stages.__file__).parent
    for name, stage in STAGES.items():
        tree = ast.parse((folder / f"{stage.module}.py").read_text("utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert stage.function in functions, name


def test_probe_words_are_flags_that_the_command_line_has() -> None:
    """What the stages call is parsed by `moe-serve` as it is today."""
    from types import SimpleNamespace

    from moe_serve.cli.main import build_parser

    servers = pytest.importorskip("tools.gpu.stages.servers")
    chain = pytest.importorskip("tools.gpu.stages.chain")
    gate = pytest.importorskip("tools.gpu.stages.gate")
    arm = SimpleNamespace(url="http://127.0.0.1:1", exporter_url="http://127.0.0.1:2")
    words = servers.probe_words(arm, arm)

    parser = build_parser("quality")
    for more in (chain.PROBE, gate.ROUNDS, gate.TASK):
        assert parser.parse_args([*words, *more]).stable_url == arm.url
    record = ["quality", "record", "--server", arm.url, "--file", "x", "--concurrency", "64"]
    for more in (gate.TEXTS, gate.TASK):
        parser.parse_args([*record, *more])
