"""The host's markers under the suite that a GPU's must pass too."""

from pathlib import Path

import pytest

from moe_serve.vllm_plugin.markers import selftest


def test_the_host_passes_the_suite_of_every_device(tmp_path: Path) -> None:
    bench, facts = selftest.open_bench(tmp_path, "host")
    checks = selftest.check_all(bench)
    bench.writer.close()

    assert facts == {"type": "cpu"}
    assert len(checks) == 6
    assert [check for check in checks if not check.passed] == []


def test_the_suite_fails_where_markers_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = selftest.open_bench(tmp_path, "host")
    add = bench.writer.add
    monkeypatch.setattr(bench.writer, "add", lambda key, ticks, tokens: add(key, ticks))
    checks = {check.name: check.passed for check in selftest.check_all(bench)}

    assert not checks["every call is counted once, with its rows and time"]
    assert not checks["a reader beside a running device sees whole values only"]
    assert checks["a window spans its calls and what lies between them"]
