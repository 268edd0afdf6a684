"""One history, three ways: a file, a real Prometheus, exporters asked; one verdict."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moe_serve.analysis.comparison import examine
from moe_serve.analysis.guards import Guard, GuardKind
from moe_serve.analysis.history import History
from moe_serve.analysis.noise import PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.errors import SourceError
from moe_serve.sources.prometheus import Prometheus
from moe_serve.sources.recorded import RecordedFile, write
from tests.monitoring.rules import tool
from tests.monitoring.server import prometheus
from tests.testing.histories import START, Fleet, Users, streams
from tests.testing.verdicts import SAME

pytestmark = pytest.mark.monitoring

PORT = 19_497
END = START + 4 * 3600
RULES = AnalysisPlan(
    pod_variation=PodVariation(gpu_sd=0.005, gpu_freedom=6),
    under_test=("policy",),
    guards=(
        Guard(kind=GuardKind.TTFT, margin=0.1),
        Guard(kind=GuardKind.ERRORS, margin=0.001),
    ),
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "fleet.om"
    with path.open("w", encoding="utf-8") as out:
        write(streams(Fleet(restart="canary-1", users=Users())), out)
    return path


def arrays(history: History) -> list[np.ndarray]:
    pods = (*history.stable.pods, *history.canary.pods)
    return [
        part for pod in pods for part in (pod.times, pod.counter_generation, pod.counts, pod.busy)
    ]


def test_a_real_prometheus_gives_the_recorded_history_and_its_verdict(
    recorded: Path, tmp_path: Path
) -> None:
    made = subprocess.run(
        [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(recorded),
         str(tmp_path / "data")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with prometheus(tmp_path, PORT, {}, keep="10y") as server:
        found = Prometheus(url=server.url).history(START, END)
        with pytest.raises(SourceError, match="no series with track='blue'"):
            source = Prometheus(url=server.url)
            replace(source, arms=replace(source.arms, stable="blue", canary="green")).history(
                START, END
            )
        assert found.provenance is not None
        for query in found.provenance.queries(START, END):
            answer = server.query(query.expression)
            samples = sum(len(series["values"]) for series in answer)
            assert (query.series, query.samples) == (len(answer), samples), query
    file = RecordedFile(path=recorded).history(START, END)
    assert file.provenance is not None
    assert [(q.subject, q.series, q.samples) for q in found.provenance.queries(START, END)] == [
        (q.subject, q.series, q.samples) for q in file.provenance.queries(START, END)
    ]
    assert found.cells == file.cells
    assert (found.stable.facts, found.canary.facts) == (file.stable.facts, file.canary.facts)
    for one, other in zip(arrays(found), arrays(file), strict=True):
        np.testing.assert_array_equal(one, other)
    verdicts = [examine(history, RULES, SAME).judgement for history in (found, file)]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].verdict.value == "PROMOTE"
