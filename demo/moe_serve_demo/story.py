"""Tell a story: start the arms, ask, measure, judge, report; leave nothing behind."""

import asyncio
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.checks import undecided
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.judge import judge
from moe_serve.analysis.noise import Design, PodVariation
from moe_serve.analysis.observations import crossover_table
from moe_serve.analysis.policy import Policy, config_digest
from moe_serve.analysis.series import CellKind, PairedBlock, void_reasons
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.verdict import Judgement
from moe_serve.quality.comparison import compare
from moe_serve.quality.finding import finding
from moe_serve.quality.result import NoQuality, QualityResult
from moe_serve.report.data import CalibrationSummary, Exam
from moe_serve_demo import evidence, exam, host, probes
from moe_serve_demo.errors import DemoError
from moe_serve_demo.load import DemoLoad, prompts
from moe_serve_demo.measure import MeasurementPlan, exported, measure
from moe_serve_demo.scenarios import Chapter
from moe_serve_demo.screen import Screen, percent
from moe_serve_demo.servers import EXPORTER_PORT, DemoServer, Place
from moe_serve_demo.settings import PROMPT_SEED, DemoSettings
from moe_serve_demo.tools import Serving

# A quarter of what a lossless skip gains in a step here: this CPU is noisy, and shared.
POLICY = Policy(margin=0.02)
_MEMORY_BYTES = 9 * host.GIB
_DISK_BYTES = 2 * host.GIB
_LOAD_PROMPTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioOutcome:
    """All that one chapter gave; the report and the exit code are made from it."""

    chapter: Chapter
    stable: evidence.ArmFacts
    canary: evidence.ArmFacts
    blocks: tuple[PairedBlock, ...]
    step: Estimate | NoEstimate
    kernel: Estimate | NoEstimate
    quality: QualityResult | NoQuality
    judgement: Judgement
    byte_bound: float
    exam: Exam | None

    @property
    def expected(self) -> bool:
        """Whether the verdict is one that a sound run may end with."""
        return self.judgement.verdict in self.chapter.expected


class Story:
    """One run of the demo."""

    def __init__(self, settings: DemoSettings, screen: Screen) -> None:
        self.settings = settings
        self.screen = screen
        self.serving = Serving(python=settings.vllm_python, environment=settings.environment)
        self.cores = host.two_cores()
        self.work = settings.report / "servers"
        self.versions: dict[str, str] = {}
        self.calibration: tuple[CalibrationSummary, ...] = ()
        self.faults: tuple[str, ...] = ()
        self.free_memory = 0
        self.servers: list[DemoServer] = []
        self._running: dict[int, DemoServer] = {}
        self._stack = ExitStack()

    def tell(self) -> tuple[ScenarioOutcome, ...]:
        """Run every chapter; the servers are stopped whatever happens.

        Raises:
            DemoError: this machine cannot run it, or a server failed.
        """
        self._prepare()
        with self._stack:
            return tuple(self._chapter(chapter) for chapter in self.settings.chapters)

    def how_to_stop(self) -> str:
        """What a person types to end the servers that were kept."""
        kept = self._running.values()
        urls = ", ".join(f"{server.arm.name} at {server.url}" for server in kept)
        metrics = ", ".join(server.exporter.url for server in kept)
        groups = " ".join(f"-{server.pid} -{server.exporter.pid}" for server in kept)
        return f"still up: {urls}; metrics at {metrics}; to stop them: kill -- {groups}"

    def _prepare(self) -> None:
        """Check the machine and the kernel's calibration, and empty the report's folder."""
        first = self.settings.port
        host.require_ports((first, first + 1, first + EXPORTER_PORT, first + 1 + EXPORTER_PORT))
        host.require_memory(_MEMORY_BYTES)
        host.require_disk(self.settings.cache, _DISK_BYTES)
        shutil.rmtree(self.work, ignore_errors=True)
        try:
            self.work.mkdir(parents=True)
        except OSError as error:
            raise DemoError(f"--report {self.settings.report}: {error.strerror}") from error
        self.free_memory = host.available_memory()
        self.versions = self.serving.versions()
        self.screen.title("moe-serve demo")
        self.screen.done(
            "software",
            f"vLLM {self.versions['vllm']}, torch {self.versions['torch']}, AITER emulated",
        )
        self._calibrate()

    def _calibrate(self) -> None:
        """Hold the emulated kernel's time against its bytes, before any server runs."""
        with self.screen.bar("kernel alone"):
            found = self.serving.calibration()
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
        if not found["passed"]:
            self.faults = ("the emulated kernel's time does not follow its bytes on this machine",)
            self.screen.warn(f"{self.faults[0]}: nothing can be promoted on it")

    def _chapter(self, chapter: Chapter) -> ScenarioOutcome:
        self.screen.title(chapter.title)
        self.screen.note(chapter.note)
        stable, canary = self._start(chapter)
        facts = evidence.arm_facts(stable), evidence.arm_facts(canary)
        for arm in facts:
            self.screen.done(arm.name, arm.summary)
        quality = asyncio.run(self._ask(stable, canary, chapter.vocabulary))
        marks = asyncio.run(self._examine(stable, canary)) if chapter.learned else None
        blocks = asyncio.run(self._measure(stable, canary, chapter.vocabulary))
        outcome = self._judge(chapter, facts, quality, blocks, marks)
        self.screen.judgement(outcome.judgement, (outcome.kernel, outcome.step))
        return outcome

    def _start(self, chapter: Chapter) -> tuple[DemoServer, DemoServer]:
        """Start both arms at once; an arm that already runs with the same pads goes on."""
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

    def _model(self, chapter: Chapter) -> Path:
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

    async def _ask(
        self, stable: DemoServer, canary: DemoServer, words: range
    ) -> QualityResult | NoQuality:
        with self.screen.bar("asking"):
            first, other = await asyncio.gather(
                probes.ask(stable.url, words), probes.ask(canary.url, words)
            )
            again = await probes.ask(stable.url, words)
        result = compare(first, other, again, epsilon_nats=POLICY.quality_epsilon_nats)
        self.screen.done("answers compared", result.reason)
        return result

    async def _examine(self, stable: DemoServer, canary: DemoServer) -> Exam:
        with self.screen.bar("examining"):
            found = await exam.compare(stable.url, canary.url)
        self.screen.done(
            "right answers",
            f"{stable.arm.name} {found.stable} and {canary.arm.name} {found.canary} "
            f"of {found.items} ({found.task})",
        )
        return found

    async def _measure(
        self, stable: DemoServer, canary: DemoServer, words: range
    ) -> tuple[PairedBlock, ...]:
        plan = self.settings.plan
        with self.screen.bar("measuring", total=plan.blocks) as bar:

            def decided(blocks: Sequence[PairedBlock], load: DemoLoad) -> bool:
                found = _estimate(blocks, CellKind.STEP, plan)
                bar.at(len(blocks), _live(found, load))
                # Wrong answers need no speed to be told; both numbers are shown all the same.
                return isinstance(found, Estimate) and not undecided(POLICY, found)

            blocks = await measure(
                stable,
                canary,
                plan=plan,
                cores=self.cores,
                prompts=prompts(_LOAD_PROMPTS, vocabulary=words, seed=PROMPT_SEED),
                decided=decided,
            )
        self.screen.done("measured", f"{len(blocks)} blocks of {plan.block_seconds:.0f} s")
        for server in (stable, canary):
            self.screen.done(f"{server.arm.name} exports", exported(server))
        return blocks

    def _judge(
        self,
        chapter: Chapter,
        facts: tuple[evidence.ArmFacts, evidence.ArmFacts],
        quality: QualityResult | NoQuality,
        blocks: tuple[PairedBlock, ...],
        marks: Exam | None,
    ) -> ScenarioOutcome:
        stable, canary = facts
        plan = self.settings.plan
        step, kernel = (_estimate(blocks, kind, plan) for kind in (CellKind.STEP, CellKind.KERNEL))
        void = void_reasons(blocks)
        bound = math.log(stable.bytes_ratio / canary.bytes_ratio)
        validity = Validity(
            deadline_blocks=plan.blocks,
            seen_blocks=len(blocks),
            block_seconds=2 * (plan.block_seconds + plan.settle_seconds),
            void_share=len(void) / len(blocks),
            void_reasons=void,
            config_differences=(*evidence.differences(stable, canary), *self.faults),
            config_digest=config_digest(
                POLICY, {"stable": stable.policy, "canary": canary.policy, "chapter": chapter.name}
            ),
        )
        return ScenarioOutcome(
            chapter=chapter,
            stable=stable,
            canary=canary,
            blocks=blocks,
            step=step,
            kernel=kernel,
            quality=quality,
            judgement=judge(
                POLICY,
                step,
                kernel,
                finding(quality.to_json()),
                validity,
                settings=settings(plan),
                byte_bound=bound,
            ),
            byte_bound=bound,
            exam=marks,
        )


def settings(plan: MeasurementPlan) -> EstimatorSettings:
    """What the demo's numbers rest on.

    The arms swap cores within every pair of blocks, so no core's own speed is left. One start of
    each server: how far two starts of the same server lie apart is not in the interval.
    """
    return EstimatorSettings(
        interim_analyses=InterimAnalyses(first=plan.first_look, last=plan.blocks // 2),
        pod_variation=PodVariation(),
        design=Design.CROSSOVER,
        alpha_low=POLICY.alpha_promote,
        alpha_high=POLICY.alpha_rollback,
    )


def _estimate(
    blocks: Sequence[PairedBlock], kind: CellKind, plan: MeasurementPlan
) -> Estimate | NoEstimate:
    return estimate(crossover_table(blocks, kind, plan.min_count), kind, settings(plan))


def _live(step: Estimate | NoEstimate, load: DemoLoad) -> str:
    rate = f"steps {percent(step.theta)}, " if isinstance(step, Estimate) else ""
    tokens = " and ".join(str(arm.tokens) for arm in load.progress)
    return f"{rate}{tokens} tokens"
