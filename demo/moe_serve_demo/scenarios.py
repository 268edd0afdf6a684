"""The demo's scenarios: which pads each arm sends, and the verdicts that are expected."""

from dataclasses import dataclass

from moe_serve_emulation.checkpoint import CheckpointSpec
from moe_serve_emulation.learned.checkpoint import spec_of

from moe_serve.analysis.verdict import Verdict
from moe_serve_demo.servers import DemoArm

FULL_WIDTH = 2880


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoChapter:
    """One comparison of two arms that differ only in their pads.

    `intermediate` is the MoE width of the served model. `learned` serves the model that has learned
    exact tasks and compares its right answers, else a model of random weights is compared by
    log-probabilities. Any verdict that is not in `expected` makes the demo exit with 1.
    """

    name: str
    title: str
    note: str
    stable: DemoArm
    canary: DemoArm
    expected: frozenset[Verdict]
    intermediate: int = FULL_WIDTH
    learned: bool = False

    @property
    def spec(self) -> CheckpointSpec:
        """The served model's sizes; both models have GPT-OSS's 2880 hidden channels."""
        if self.learned:
            return spec_of(self.intermediate, FULL_WIDTH)
        return CheckpointSpec(intermediate=self.intermediate)

    @property
    def vocabulary(self) -> range:
        """The model's ordinary tokens; the first three of the seeded model are special."""
        return range(3, self.spec.vocab)


_ZERO = DemoArm(name="stable", policy="zero")

ALIGNED = DemoChapter(
    name="aligned",
    title="Lossless pads: the kernel skips only padding",
    note="Stable skips no padding. The canary sends the largest pads that lose no neuron.",
    stable=_ZERO,
    canary=DemoArm(name="canary-aligned", policy="aligned"),
    expected=frozenset({Verdict.PROMOTE}),
)
UPSTREAM = DemoChapter(
    name="upstream",
    title="vLLM's own pads at TP=1: faster, with wrong answers",
    note="The canary sends vLLM's own pads. They zero 192 of 2880 neurons, so by default the "
    "worker refuses to start; it starts here because the demo gives it a loss budget of 7 %.",
    stable=_ZERO,
    canary=DemoArm(name="canary-upstream", policy="upstream", max_neuron_loss=0.07),
    expected=frozenset({Verdict.ROLLBACK}),
)
NOOP = DemoChapter(
    name="noop",
    title="No change: both arms send the same pads",
    note="There is no difference to find, so a promotion would be an error.",
    stable=_ZERO,
    canary=DemoArm(name="canary-same", policy="zero"),
    expected=frozenset({Verdict.ROLLBACK, Verdict.KEEP_GOING}),
)
TP8 = DemoChapter(
    name="tp8",
    title="One rank of TP=8 with the pads of vLLM 0.22",
    note="One rank of eight on one process: 360 neurons padded to 512, with the pads that vLLM "
    "0.22 sent at TP=8 (128/256). They zero 104 of 360 neurons; the demo gives the worker a loss "
    "budget of 30 % so that it starts. The model has learned to sort lists: its right answers are "
    "counted.",
    stable=_ZERO,
    canary=DemoArm(name="canary-tp8", policy="rounded", max_neuron_loss=0.30),
    expected=frozenset({Verdict.ROLLBACK}),
    intermediate=360,
    learned=True,
)

SCENARIOS: dict[str, tuple[DemoChapter, ...]] = {
    "story": (ALIGNED, UPSTREAM),
    "aligned": (ALIGNED,),
    "upstream": (UPSTREAM,),
    "noop": (NOOP,),
    "tp8": (TP8,),
}
