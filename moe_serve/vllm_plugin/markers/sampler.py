"""The sampled layers' calls: which slot each is counted in, when it counts, and what that costs."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moe_serve.telemetry.layout import pack_key
from moe_serve.telemetry.proof import InstrumentationState
from moe_serve.telemetry.record import RecordWriter
from moe_serve.telemetry.slots import BatchPhase, GraphMode, SlotKey, SlotKind, eager_bucket
from moe_serve.vllm_plugin.markers.layers import Sampled, running
from moe_serve.vllm_plugin.markers.slot import Backend, Cost, Slot

JUDGED_STEPS = 1000
# Amid a model's traffic a pair costs up to 1.7 times what it does alone (docs/benchmarks.md).
_IN_PLACE = 2
_FORWARD_CONTEXT, _UBATCHING = "vllm.forward_context", "vllm.v1.worker.ubatching"


@dataclass(frozen=True, slots=True)
class Marked:
    """A call between its markers."""

    slot: Slot
    rows: int
    ends: Slot | None


class Sampler:
    """Marks the calls of sampled layers while `running` names one.

    Whatever fails here turns the markers off and is handed to `on_change`; it is never raised into
    serving.
    """

    def __init__(
        self,
        writer: RecordWriter,
        backend: Backend,
        *,
        pairs: int,
        decode_graphs: Callable[[], bool],
        budget: float,
        on_change: Callable[[str | None], None],
        capturing: Callable[[], bool],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Calibrate.

        Args:
            writer: the rank's record.
            backend: markers of the device.
            pairs: how many pairs of markers a step runs.
            decode_graphs: whether full graphs serve decode steps alone; asked at each capture,
                since vLLM settles it late.
            budget: the share of a step that markers may cost.
            on_change: told why when the state changes, and None when only the overhead does.
            capturing: whether the current stream is captured into a graph.
            clock: seconds.
        """
        self._writer, self._backend = writer, backend
        self._pairs, self._decode_graphs, self._budget = pairs, decode_graphs, budget
        self._on_change, self._capturing, self._clock = on_change, capturing, clock
        self._slots: dict[SlotKey, Slot | None] = {}
        self._step: BatchPhase | None = None
        self._served = False
        self._last_step: float | None = None
        self._intervals: list[float] = []
        self.state = InstrumentationState.ON
        self.overhead: float | None = None
        self.cost: Cost = backend.calibrate()

    @property
    def path(self) -> str:
        """How totals reach the record."""
        return self._backend.path

    @property
    def backend_name(self) -> str:
        """The device's kind: `cuda`, `hip` or `host`."""
        return self._backend.name

    def begin(self, rows: int) -> Marked | None:
        """Mark the start of a fused-MoE call; None: this call is not timed."""
        layer = running.get()
        if layer is None or self.state is not InstrumentationState.ON:
            return None
        try:
            return self._begin(layer, rows)
        except Exception as error:  # noqa: BLE001  # serving must survive whatever telemetry does
            self._fail(error)
            return None

    def end(self, marked: Marked) -> None:
        """Mark the end of a call."""
        try:
            self._backend.stop(marked.slot, marked.rows, marked.ends)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def serving(self, phase: BatchPhase | None) -> None:
        """What is launched from here on serves a step of this phase; None: it serves nobody."""
        if self.state is not InstrumentationState.ON:
            return
        self._step = phase
        try:
            self._backend.gate(is_open=phase is not None)
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def served(self) -> None:
        """One served step has been launched: weigh the markers against the time between steps."""
        self._step, self._served = None, True
        now = self._clock()
        if self._last_step is not None:
            self._intervals.append(now - self._last_step)
        self._last_step = now
        if len(self._intervals) == JUDGED_STEPS:
            self._judge()

    def close(self) -> None:
        """Let go of the device's side."""
        self._backend.close()

    def _begin(self, layer: Sampled, rows: int) -> Marked | None:
        ubatch = _ubatch()
        where = self._captured_as(rows) if self._capturing() else self._eager_as(rows)
        if where is None:
            return None
        mode, phase, bucket = where
        slot = self._slot(
            SlotKey(
                kind=SlotKind.KERNEL, mode=mode, phase=phase, bucket=bucket, layer=layer.number,
                ubatch=0 if ubatch is None else ubatch + 1, model=layer.model,
            )
        )  # fmt: skip
        if slot is None:
            return None
        window = None
        # The halves of an overlapped step interleave: no one window spans either.
        if (layer.first or layer.last) and ubatch is None:
            window = self._slot(
                SlotKey(kind=SlotKind.WINDOW, mode=mode, phase=phase, bucket=bucket)
            )
        self._backend.start(slot, window if layer.first else None)
        return Marked(slot=slot, rows=rows, ends=window if layer.last else None)

    def _captured_as(self, rows: int) -> tuple[GraphMode, BatchPhase, int]:
        if self._served:
            self._served = False
            self._writer.recaptured()
        if _is_piecewise():
            return GraphMode.PIECEWISE, BatchPhase.ANY, rows
        return GraphMode.FULL, BatchPhase.DECODE if self._decode_graphs() else BatchPhase.ANY, rows

    def _eager_as(self, rows: int) -> tuple[GraphMode, BatchPhase, int] | None:
        if self._step is None:
            return None
        return GraphMode.EAGER, self._step, eager_bucket(rows)

    def _slot(self, key: SlotKey) -> Slot | None:
        if key not in self._slots:
            number = self._writer.slot(key)
            slot = None if number is None else Slot(number=number, word=pack_key(key))
            if slot:
                self._backend.owns(slot)
            self._slots[key] = slot
        return self._slots[key]

    def _judge(self) -> None:
        step = statistics.median(self._intervals)
        self._intervals.clear()
        self.overhead = self._pairs * self.cost.pair_seconds * _IN_PLACE / step
        if self.state is not InstrumentationState.ON or self.overhead <= self._budget:
            self._on_change(None)
        else:
            self._stop(
                InstrumentationState.OVER_BUDGET,
                f"markers cost {self.overhead:.2%} of a median step of {step * 1e3:.2f} ms, the "
                f"budget is {self._budget:.2%}: they count no more; what is in captured graphs "
                "stays there until the next start, which needs fewer layers or none",
            )

    def _fail(self, error: Exception) -> None:
        self._writer.fail()
        self._stop(InstrumentationState.FAILED, f"{type(error).__name__}: {error}")

    def _stop(self, state: InstrumentationState, reason: str) -> None:
        if self.state is not InstrumentationState.ON:
            return
        self.state = state
        try:
            self._backend.gate(is_open=False)
        except Exception as error:  # noqa: BLE001
            reason = f"{reason}; and then {error}"
        self._on_change(reason)


def _is_piecewise() -> bool:
    """Whether vLLM captures pieces: a full capture's context does not say what it is."""
    context: Any = sys.modules.get(_FORWARD_CONTEXT)
    if context is None or not context.is_forward_context_available():
        return False
    mode = getattr(context.get_forward_context(), "cudagraph_runtime_mode", None)
    return getattr(mode, "name", "") == "PIECEWISE"


def _ubatch() -> int | None:
    """Which half of a dual-batch-overlap step runs in this thread; None: the step is whole."""
    ubatching: Any = sys.modules.get(_UBATCHING)
    if ubatching is None or not ubatching.dbo_enabled():
        return None
    return int(ubatching.dbo_current_ubatch_id())
