"""The stories that the demo can tell: which pads each arm sends, and what ought to come of it."""

from dataclasses import dataclass

from moe_serve_emulation.checkpoint import CheckpointSpec
from moe_serve_emulation.learned.checkpoint import spec_of

from moe_serve.analysis.verdict import Verdict
from moe_serve_demo.servers import DemoArm

FULL_WIDTH = 2880


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One comparison: two arms that differ in their pads alone.

    `intermediate` is the MoE width of the served model; `learned` serves the model that has learned
    exact tasks instead of random weights, and counts right answers; `expected` are the verdicts
    that a sound run may end with (anything else makes the demo fail).
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
        """The served model's sizes: GPT-OSS's own 2880 channels, whichever model."""
        if self.learned:
            return spec_of(self.intermediate, FULL_WIDTH)
        return CheckpointSpec(intermediate=self.intermediate)

    @property
    def vocabulary(self) -> range:
        """The model's ordinary tokens; the first three words of the seeded one are special."""
        return range(3, self.spec.vocab)


_ZERO = DemoArm(name="stable", policy="zero")

ALIGNED = Chapter(
    name="aligned",
    title="Lossless pads: skip what is padding, and only that",
    note="Stable skips no padding. The canary sends the largest pads that lose nothing.",
    stable=_ZERO,
    canary=DemoArm(name="canary-aligned", policy="aligned"),
    expected=frozenset({Verdict.PROMOTE}),
)
UPSTREAM = Chapter(
    name="upstream",
    title="vLLM's own pads at TP=1: fast, and wrong",
    note="The canary leaves vLLM's numbers as they are. They zero 192 of 2880 neurons, so by "
    "default the worker would refuse to start; it starts here only because the demo gives it a "
    "loss budget of 7 %.",
    stable=_ZERO,
    canary=DemoArm(name="canary-upstream", policy="upstream", max_neuron_loss=0.07),
    expected=frozenset({Verdict.ROLLBACK}),
)
NOOP = Chapter(
    name="noop",
    title="No change: both arms send the same pads",
    note="Nothing to find. A judge that promotes this pair promotes noise.",
    stable=_ZERO,
    canary=DemoArm(name="canary-same", policy="zero"),
    expected=frozenset({Verdict.ROLLBACK, Verdict.KEEP_GOING}),
)
TP8 = Chapter(
    name="tp8",
    title="The shard of TP=8 as vLLM 0.22 served it",
    note="One rank of eight, reproduced on one process: 360 neurons padded to 512, with the pads "
    "that vLLM 0.22 sent at TP=8 (128/256). 104 of 360 neurons vanish; the demo gives the worker "
    "a loss budget of 30 % so that it starts. The model has learned to sort lists: its "
    "right answers are counted.",
    stable=_ZERO,
    canary=DemoArm(name="canary-tp8", policy="rounded", max_neuron_loss=0.30),
    expected=frozenset({Verdict.ROLLBACK}),
    intermediate=360,
    learned=True,
)

SCENARIOS: dict[str, tuple[Chapter, ...]] = {
    "story": (ALIGNED, UPSTREAM),
    "aligned": (ALIGNED,),
    "upstream": (UPSTREAM,),
    "noop": (NOOP,),
    "tp8": (TP8,),
}
