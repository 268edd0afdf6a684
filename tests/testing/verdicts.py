"""Findings of the usual fleet, for tests of whatever takes a verdict."""

from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.noise import Calibration, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.quality.finding import QualityFinding, finding
from moe_serve.quality.result import NoQuality, QualityOutcome
from moe_serve.sources.assemble import ArmSelector, QuerySource, assemble
from tests.testing.histories import START, Fleet, streams
from tests.testing.probed import probed

SAME = finding(probed(QualityOutcome.PASSED))
RULES = AnalysisPlan(
    pod_variation=PodVariation(gpu_sd=0.003, gpu_freedom=6),
    under_test=("policy",),
    calibration=Calibration(
        block_seconds=600, block_variance=1e-4, blocks=144, autocorrelation=0.1
    ),
)


def findings(
    quality: QualityFinding | NoQuality = SAME, hours: float = 4, **fleet: object
) -> Findings:
    made = streams(Fleet(**fleet))  # type: ignore[arg-type]
    way = QuerySource(
        source="memory", build_query=lambda names, start, end: f"{names} {start} {end}"
    )
    history = assemble(made, ArmSelector(), START, START + hours * 3600, "memory", way)
    return examine(history, RULES, quality)
