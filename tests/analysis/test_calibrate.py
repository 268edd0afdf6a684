"""An A/A run gives the figures that it was made with."""

import bisect
import math

import pytest

from moe_serve.analysis.calibrate import calibrate
from moe_serve.analysis.history import History
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.errors import UsageError
from moe_serve.sources.assemble import ArmSelector, assemble
from tests.testing.histories import START, Fleet, streams


def history(hours: float = 12, **fleet: object) -> History:
    known = {"gain": 1.0, "policies": ("zero", "zero"), "hours": hours, **fleet}
    made = streams(Fleet(**known))  # type: ignore[arg-type]
    return assemble(made, ArmSelector(), START, START + hours * 3600, "memory")


def test_independent_noise_is_found() -> None:
    found = calibrate(history(pods=4, noise=0.05), AnalysisPlan())
    # 40 scrapes a block, 4 pods an arm, 3 cells of nearly equal weight, two arms.
    expected = 2 * 0.05**2 / (40 * 4 * 3)
    assert found.calibration.block_variance == pytest.approx(expected, rel=0.5)
    assert found.calibration.blocks == 72
    assert found.calibration.autocorrelation < 0.35
    assert found.pod_variation is not None
    assert found.pod_variation.gpu_freedom == 7
    assert found.pod_variation.gpu_sd < 0.003
    assert abs(found.mean_log_ratio) < 0.002
    assert found.advised_seconds >= 600


def test_pods_that_differ_are_found() -> None:
    """Arms that lie a tenth apart, as pods that do: two at one rate and two at another."""
    found = calibrate(history(pods=2, gain=1.1, noise=0.01), AnalysisPlan())
    assert found.pod_variation is not None
    expected = math.log(1.1) / math.sqrt(3)
    assert found.pod_variation.gpu_sd == pytest.approx(expected, rel=0.05)


def test_sizes_and_weights_that_are_registered_alone_count() -> None:
    made = history(pods=2, noise=0.03)
    whole, some = (calibrate(made, AnalysisPlan(batches=own)) for own in (None, (8,)))
    ratio = some.calibration.block_variance / whole.calibration.block_variance
    assert ratio == pytest.approx(3, rel=0.6)
    weights = {Cell(kind=CellKind.STEP, layer=None, bucket=8): 1.0}
    assert calibrate(made, AnalysisPlan(weights=weights)) == some


def test_blocks_without_the_registered_size_are_none() -> None:
    made = streams(Fleet(gain=1.0, policies=("zero", "zero"), hours=12))
    for stream in made:
        if stream.labels.get("bucket") == "8":
            last = bisect.bisect(stream.times, START + 2400)
            del stream.times[last:], stream.values[last:]
    short = assemble(made, ArmSelector(), START, START + 12 * 3600, "memory")
    weights = {Cell(kind=CellKind.STEP, layer=None, bucket=8): 1.0}
    for analysis_plan in (AnalysisPlan(weights=weights), AnalysisPlan(batches=(8,))):
        with pytest.raises(UsageError, match=r"needs 24 blocks of 600 s .* this one has 4"):
            calibrate(short, analysis_plan)


def test_arms_that_differ_are_no_calibration() -> None:
    with pytest.raises(UsageError, match="no A/A run: the arms differ in policy: zero and aligned"):
        calibrate(history(policies=("zero", "aligned")), AnalysisPlan())


@pytest.mark.parametrize(("hours", "blocks"), [(2, 12), (0.1, 0)])
def test_a_short_run_is_refused(hours: float, blocks: int) -> None:
    with pytest.raises(UsageError, match=f"needs 24 blocks of 600 s .* this one has {blocks}"):
        calibrate(history(hours=hours), AnalysisPlan())
