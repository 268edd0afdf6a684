"""One run of the demo: start the arms, probe, measure, judge, report; stop every process."""

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from moe_serve.analysis.checks import undecided
from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.history import History
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.quality.result import NoQuality
from moe_serve.report.comparison import arm_sheet
from moe_serve.report.data import CalibrationSummary
from moe_serve_demo import host, probing
from moe_serve_demo.errors import DemoError
from moe_serve_demo.judging import ChapterFiles
from moe_serve_demo.load import DemoLoad, prompts
from moe_serve_demo.measure import measure, scraper
from moe_serve_demo.scenarios import DemoChapter
from moe_serve_demo.screen import Screen, describe_arm, percent
from moe_serve_demo.servers import EXPORTER_PORT, DemoServer, Place
from moe_serve_demo.serving import Serving

PROMPT_SEED = 7
_MEMORY_BYTES = 9 * host.GIB
_DISK_BYTES = 2 * host.GIB
_LOAD_PROMPTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """The chapters of one run, its folders and its ports.

    `report` is the output folder, `cache` that of the models. `environment` is handed to the
    servers, below the variables that the demo sets.
    """

    chapters: tuple[DemoChapter, ...]
    report: Path
    cache: Path
    vllm_python: Path
    port: int
    keep: bool
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterOutcome:
    """One chapter's verdict with the history and the files that it rests on."""

    chapter: DemoChapter
    files: ChapterFiles
    history: History
    found: Findings

    @property
    def expected(self) -> bool:
        """Whether the chapter lists this verdict as expected."""
        return self.found.judgement.verdict in self.chapter.expected


class Demo:
    """One run; `run` gives the outcomes, the attributes say what it ran on."""

    def __init__(self, settings: DemoSettings, screen: Screen) -> None:
        self.settings = settings
        self.screen = screen
        self.serving = Serving(python=settings.vllm_python, environment=settings.environment)
        self.cores = host.two_cores()
        self.work = settings.report / "servers"
        self.versions: dict[str, str] = {}
        self.calibration: tuple[CalibrationSummary, ...] = ()
        self.calibrated = False
        self.free_memory = 0
        self.servers: list[DemoServer] = []
        self._running: dict[int, DemoServer] = {}
        self._stack = ExitStack()

    def run(self) -> tuple[ChapterOutcome, ...]:
        """Run every chapter; the servers are stopped whatever happens.

        Raises:
            DemoError: this machine cannot run it, or a server failed.
        """
        self._prepare()
        with self._stack:
            return tuple(self._chapter(chapter) for chapter in self.settings.chapters)

    def how_to_stop(self) -> str:
        """One line: the servers that `--keep` left running, and the command that ends them."""
        kept = self._running.values()
        urls = ", ".join(f"{server.arm.name} at {server.url}" for server in kept)
        metrics = ", ".join(f"{server.exporter_url}/metrics" for server in kept)
        groups = " ".join(f"-{server.server.pid} -{server.exporter.pid}" for server in kept)
        return f"still up: {urls}; metrics at {metrics}; to stop them: kill -- {groups}"

    def _prepare(self) -> None:
        first = self.settings.port
        host.require_ports((first, first + 1, first + EXPORTER_PORT, first + 1 + EXPORTER_PORT))
        host.require_memory(_MEMORY_BYTES)
        host.require_disk(self.settings.cache, _DISK_BYTES)
        shutil.rmtree(self.work, ignore_errors=True)
        try:
            self.work.mkdir(parents=True)
        except OSError as error:
            raise DemoError(f"--out {self.settings.report}: {error.strerror}") from error
        self.free_memory = host.available_memory()
        self.versions = self.serving.versions()
        self.screen.title("moe-serve demo")
        self.screen.done(
            "software",
            f"vLLM {self.versions['vllm']}, torch {self.versions['torch']}, AITER emulated",
        )
        self._calibrate()

    def _calibrate(self) -> None:
        """Compare the emulated kernel's time with its bytes, before any server runs."""
        with self.screen.bar("kernel alone"):
            found = self.serving.calibration()
        self.calibrated = found["passed"]
        self.calibration = tuple(
            CalibrationSummary(
                label=ratio["label"],
                bytes_ratio=ratio["bytes_ratio"],
                seconds_ratio=ratio["seconds_ratio"],
            )
            for ratio in found["ratios"]
        )
        shown = ", ".join(
            f"{ratio.label} {ratio.seconds_ratio:.3f} (bytes {ratio.bytes_ratio:.3f})"
            for ratio in self.calibration
        )
        self.screen.done("kernel alone", shown)
        if not self.calibrated:
            self.screen.warn(
                "the emulated kernel's time does not follow its bytes on this machine: the demo "
                "goes on and ends with exit code 1"
            )

    def _chapter(self, chapter: DemoChapter) -> ChapterOutcome:
        self.screen.title(chapter.title)
        self.screen.note(chapter.note)
        files = ChapterFiles(self.settings.report / chapter.name)
        plan = files.prepare("non-inferior" if chapter.learned else "identical")
        stable, canary = self._start(chapter)
        self._probe(stable, canary, chapter, files)
        self._measure(stable, canary, chapter, plan, files)
        history, found = files.judge()
        for arm, server in ((history.stable, stable), (history.canary, canary)):
            self.screen.done(server.arm.name, describe_arm(arm_sheet(arm)))
        self.screen.verdict(found)
        return ChapterOutcome(chapter=chapter, files=files, history=history, found=found)

    def _start(self, chapter: DemoChapter) -> tuple[DemoServer, DemoServer]:
        """Start both arms at once; one that already runs with the same settings is kept."""
        started: list[DemoServer] = []
        model = self._model(chapter)
        for arm, port, core in zip(
            (chapter.stable, chapter.canary),
            (self.settings.port, self.settings.port + 1),
            self.cores,
            strict=True,
        ):
            running = self._running.get(port)
            if running and (running.arm, running.place.model) == (arm, model):
                running.pin(core)
                continue
            if running:
                running.stop()
            server = DemoServer(arm, self._place(model, port, core))
            self._stack.callback(self._end, server)
            server.start()
            self._running[port] = server
            self.servers.append(server)
            started.append(server)
        self._wait(started)
        return self._running[self.settings.port], self._running[self.settings.port + 1]

    def _wait(self, started: Sequence[DemoServer]) -> None:
        names = " and ".join(server.arm.name for server in started)
        with self.screen.bar(f"starting {names}") as bar:
            begun = time.monotonic()
            for server in started:
                server.wait_ready(lambda seconds: bar.at(0, f"{seconds:.0f} s"))
                server.favour_worker()
        self.screen.done("servers ready", f"{names} after {time.monotonic() - begun:.0f} s")

    def _end(self, server: DemoServer) -> None:
        if not self.settings.keep:
            server.stop()

    def _place(self, model: Path, port: int, core: int) -> Place:
        return Place(
            vllm_python=self.settings.vllm_python,
            model=model,
            port=port,
            core=core,
            work=self.work,
            keep=self.settings.keep,
            environment=self.settings.environment,
        )

    def _model(self, chapter: DemoChapter) -> Path:
        cache, spec = self.settings.cache / "models", chapter.spec
        with self.screen.bar("model"):
            begun = time.monotonic()
            if chapter.learned:
                model = self.serving.learned(cache, spec.intermediate, spec.hidden)
            else:
                model = self.serving.checkpoint(cache, spec.intermediate)
        self.screen.done(
            "model",
            f"GPT-OSS, {'learned' if chapter.learned else 'seeded'}: {spec.layers} layers, "
            f"{spec.experts} experts, {spec.hidden} hidden x {spec.intermediate} neurons "
            f"({time.monotonic() - begun:.0f} s)",
        )
        return model

    def _probe(
        self, stable: DemoServer, canary: DemoServer, chapter: DemoChapter, files: ChapterFiles
    ) -> None:
        with self.screen.bar("probing") as bar:
            begun = time.monotonic()
            result = asyncio.run(
                probing.probe(stable, canary, chapter, lambda line: bar.at(0, line))
            )
        probing.write(files.quality, result)
        self.screen.done(
            "answers compared",
            f"{result.outcome.value}: {result.reason} ({time.monotonic() - begun:.0f} s)",
        )

    def _measure(
        self,
        stable: DemoServer,
        canary: DemoServer,
        chapter: DemoChapter,
        plan: AnalysisPlan,
        files: ChapterFiles,
    ) -> None:
        source = scraper(stable.exporter_url, canary.exporter_url)
        words = prompts(_LOAD_PROMPTS, vocabulary=chapter.vocabulary, seed=PROMPT_SEED)
        load = DemoLoad(urls=(stable.url, canary.url), prompts=words)
        with self.screen.bar("measuring", total=plan.interim_analyses.last) as bar:

            def decided(history: History) -> bool:
                # Speed alone ends the measurement: the answers are compared already, and the
                # report shows the rate of a canary with wrong answers too.
                found = examine(history, plan, NoQuality(reason="not needed yet"))
                bar.at(found.blocks, _live(found, load))
                step = found.estimates.step
                return isinstance(step, Estimate) and not undecided(plan.policy, step)

            asyncio.run(
                measure((stable, canary), source, load, plan, cores=self.cores, decided=decided)
            )
        source.record(files.history)
        self.screen.done("measured", f"recorded in {files.history}")


def _live(found: Findings, load: DemoLoad) -> str:
    rate = (
        f"steps {percent(found.estimates.step.theta)}, "
        if isinstance(found.estimates.step, Estimate)
        else ""
    )
    tokens = " and ".join(str(arm.tokens) for arm in load.progress)
    return f"{rate}{tokens} tokens"
