"""The probe's result as the demo writes it."""

from pathlib import Path

from moe_serve_demo import probing

from moe_serve.config import quality_file
from moe_serve.probe.run import GateResult
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality, QualityOutcome
from tests.testing.probed import probed

ASKED = ("at", "arms", "mode", "allowed", "alpha", "reference", "seconds", "requests_an_arm")


def test_result_written_by_the_demo_is_read_by_the_judge(tmp_path: Path) -> None:
    whole = probed(QualityOutcome.PASSED)
    result = GateResult(
        result=NoQuality(reason="no prompt was answered"),
        drift=NoQuality(reason="no counters"),
        details={name: whole[name] for name in ASKED if name in whole},
    )
    path = tmp_path / "quality.json"
    probing.write(path, result)
    found = quality_file.read(path)
    assert isinstance(found, QualityFinding)
    assert found.outcome is QualityOutcome.UNDECIDED
