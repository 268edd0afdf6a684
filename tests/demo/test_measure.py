"""The demo's measurement on real exporters over simulated workers, with a clock of the test's."""

import asyncio
import contextlib
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moe_serve_demo import measure
from moe_serve_demo.errors import DemoError
from moe_serve_demo.judging import ChapterFiles
from moe_serve_demo.load import prompts
from moe_serve_demo.scenarios import SCENARIOS

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.history import History
from moe_serve.cli.main import main
from moe_serve.quality.result import QualityOutcome
from moe_serve.sources.recorded import RecordedFile
from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind
from tests.testing import proofs
from tests.testing.exporters import exporting
from tests.testing.histories import START
from tests.testing.probed import probed

CORES = (4, 5)
# How fast each core is, and how many steps of 20 ms a window of 5 s has on average.
SPEEDS = {4: 1.0, 5: 1.2}
GAIN = 1.08
BUCKETS = (2, 4, 8)
STEPS = 60
EAGER = {"mode": GraphMode.EAGER, "phase": BatchPhase.DECODE}


class SimulatedArm:
    """A worker whose steps take a known time on each core; it counts while the clock sleeps."""

    def __init__(self, folder: Path, *, gain: float, seed: int, **facts: Any) -> None:
        folder.mkdir()
        self.writer = RecordWriter(folder, Rank())
        self.writer.prove(proofs.proof(**facts))
        self.gain, self.noise = gain, random.Random(seed)
        self.cores: list[int] = []
        self.alive = True

    def require_alive(self) -> None:
        if not self.alive:
            raise DemoError("canary: ended with exit code 1")

    def pin(self, core: int) -> None:
        self.cores.append(core)

    def work(self, core: int) -> None:
        slow = math.exp(self.noise.gauss(0, 0.01)) / SPEEDS[core]
        for bucket in BUCKETS:
            kernel = SlotKey(kind=SlotKind.KERNEL, bucket=bucket, layer=0, **EAGER)
            step = SlotKey(kind=SlotKind.STEP, bucket=bucket, **EAGER)
            for _ in range(STEPS // len(BUCKETS)):
                self.writer.add(kernel, int(8e6 * slow / self.gain), tokens=bucket)
                self.writer.add(step, int(20e6 * slow / self.gain), tokens=bucket)


class SimulatedLoad:
    """Runs until it is cancelled, or fails at once."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    async def run(self) -> None:
        if self.error:
            raise self.error
        await asyncio.Event().wait()


class SimulatedClock:
    """Time that passes only where the measurement sleeps; both arms work meanwhile."""

    def __init__(self, arms: tuple[SimulatedArm, SimulatedArm]) -> None:
        self.arms, self.time = arms, START

    def now(self) -> float:
        self.time += 1e-3
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        for arm, first in zip(self.arms, CORES, strict=True):
            arm.work(arm.cores[-1] if arm.cores else first)
        self.time += seconds


class Simulation:
    """Two simulated arms, their exporters, and the files of a chapter."""

    def __init__(self, folder: Path) -> None:
        shape = {"sent": {"hidden": 0, "intermediate": 0}, "bytes_ratio": 1.138}
        self.arms = (
            SimulatedArm(folder / "stable", gain=1.0, seed=1, policy="zero",
                         shapes=[proofs.shape(**shape)]),
            SimulatedArm(folder / "canary", gain=GAIN, seed=2,
                         shapes=[proofs.shape(bytes_ratio=1.013)]),
        )  # fmt: skip
        self.files = ChapterFiles(folder / "chapter")
        self.plan = self.files.prepare("identical")
        self.clock = SimulatedClock(self.arms)
        self.urls: list[str] = []

    def measure(self, load: SimulatedLoad | None = None, *, blocks: int = 12) -> measure.Scraper:
        clock = measure.WallClock(now=self.clock.now, sleep=self.clock.sleep)
        source = measure.scraper(*self.urls, clock=clock)
        counted = iter(range(1, 1000))

        def decided(_history: History) -> bool:
            return next(counted) == blocks

        asyncio.run(
            measure.measure(
                self.arms, source, load or SimulatedLoad(), self.plan,
                cores=CORES, decided=decided, clock=clock,
            )
        )  # fmt: skip
        return source

    def judge(self, outcome: QualityOutcome) -> Findings:
        """Judge the recorded files with a probe's result of these arms."""
        recorded = RecordedFile(path=self.files.history)
        history = recorded.history(*recorded.span())
        known = history.stable.facts, history.canary.facts
        self.files.quality.write_text(json.dumps(probed(outcome, known=known)))
        return self.files.judge()[1]


@contextlib.contextmanager
def simulated(folder: Path) -> Iterator[Simulation]:
    made = Simulation(folder)
    with contextlib.ExitStack() as stack:
        for name in ("stable", "canary"):
            url = stack.enter_context(exporting(folder / name))
            made.urls.append(url.removesuffix("/metrics"))
        yield made


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    with simulated(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """A chapter's recorded history of 12 blocks."""
    with simulated(tmp_path_factory.mktemp("recorded")) as made:
        made.measure().record(made.files.history)
    return made


def test_measure_swaps_the_cores_in_every_block(simulation: Simulation) -> None:
    simulation.measure(blocks=3)
    stable, canary = simulation.arms
    assert stable.cores == [5, 4, 5, 4, 5, 4]
    assert canary.cores == [4, 5, 4, 5, 4, 5]


def test_judge_on_swapped_cores_finds_the_gain_alone(recorded: Simulation) -> None:
    """One core is 20 % faster than the other; the estimate has nothing of it."""
    found = recorded.judge(QualityOutcome.PASSED)
    assert found.judgement.verdict.value == "PROMOTE", found.judgement.reason
    assert isinstance(found.estimates.step, Estimate)
    assert found.estimates.step.theta == pytest.approx(math.log(GAIN), abs=0.005)
    assert found.blocks == found.estimates.step.blocks == 12
    assert not found.observations.stable.void and not found.observations.canary.void


def test_judge_without_proven_answers_promotes_nothing(recorded: Simulation) -> None:
    assert recorded.judge(QualityOutcome.FAILED).judgement.verdict.value == "ROLLBACK"
    assert recorded.judge(QualityOutcome.UNDECIDED).judgement.verdict.value == "KEEP_GOING"


def test_byte_bound_comes_from_both_arms_exported_bytes(recorded: Simulation) -> None:
    found = recorded.judge(QualityOutcome.PASSED)
    assert found.observations.byte_bound == pytest.approx(math.log(1.138 / 1.013), abs=0.005)
    (check,) = (c for c in found.judgement.checks if c.name == "within_byte_bound")
    assert (check.passed, check.threshold) == (True, found.observations.byte_bound)


def test_canary_judge_on_the_chapters_files_repeats_the_verdict(
    recorded: Simulation, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that the report shows gives the demo's own verdict, number by number."""
    found = recorded.judge(QualityOutcome.PASSED)
    words = recorded.files.command.split()
    assert words[0] == "moe-serve"
    assert main([*words[1:], "--output", "json"]) == found.judgement.verdict.exit_code
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))


def test_measure_ends_with_the_reason_of_a_failed_load(simulation: Simulation) -> None:
    load = SimulatedLoad(ExceptionGroup("arms", [DemoError("canary: no answer")]))
    with pytest.raises(DemoError, match="canary: no answer"):
        simulation.measure(load)


def test_measure_ends_with_a_server_that_ended(simulation: Simulation) -> None:
    simulation.arms[1].alive = False
    with pytest.raises(DemoError, match="canary: ended with exit code 1"):
        simulation.measure()


def test_measure_names_an_exporter_that_does_not_answer(simulation: Simulation) -> None:
    simulation.urls[1] = "http://127.0.0.1:9"
    with pytest.raises(DemoError, match=r"exporter http://127\.0\.0\.1:9/metrics: ConnectError"):
        simulation.measure()


def test_prompts_are_equal_for_equal_seeds() -> None:
    assert prompts(4, vocabulary=range(3, 9), seed=1) == prompts(4, vocabulary=range(3, 9), seed=1)
    assert prompts(4, vocabulary=range(3, 9), seed=1) != prompts(4, vocabulary=range(3, 9), seed=2)


def test_every_chapter_differs_only_in_its_pads() -> None:
    for chapters in SCENARIOS.values():
        for chapter in chapters:
            assert chapter.stable.policy == "zero"
            assert chapter.expected
