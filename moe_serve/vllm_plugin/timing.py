"""Kernel timing in one worker: set up once its model is loaded, and off wherever it cannot be."""

from collections.abc import Callable
from typing import Any

from moe_serve.telemetry.proof import (
    DeviceProof,
    InstrumentationState,
    LayersProof,
    MarkersProof,
)
from moe_serve.telemetry.record import RecordWriter
from moe_serve.telemetry.slots import ModelRole
from moe_serve.vllm_plugin.markers import layers
from moe_serve.vllm_plugin.markers.host import HostMarkers
from moe_serve.vllm_plugin.markers.sampler import Sampler
from moe_serve.vllm_plugin.markers.slot import Backend
from moe_serve.vllm_plugin.settings import LAYERS, MARKERS, PluginSettings
from moe_serve.vllm_plugin.worker_config import separates_decode_graphs

_NANOSECONDS = 10**9
# Characters: a compiler's error may fill pages, and the proof has its own room.
_LONGEST_REASON = 500


class Unsupported(Exception):
    """Why this worker's kernels cannot be timed."""


class Timing:
    """`sampler` is what calls go through; None while nothing is timed."""

    def __init__(self, settings: PluginSettings, on_change: Callable[[str | None], None]) -> None:
        """`on_change`: told why when markers go off, None when only their figures are new."""
        self.sampler: Sampler | None = None
        self._settings, self._on_change = settings, on_change
        self._state, self._reason = InstrumentationState.OFF, "the model is not loaded"
        self.device: DeviceProof | None = None
        self._clock: Any = None
        self._attached: dict[layers.Sampled, layers.MoeLayer] = {}
        self._moe_layers = 0

    def open(self, worker: Any) -> int:
        """Ticks per second of this worker's clock, for its record; asks the device."""
        device = worker.device
        self.device = DeviceProof(type=device.type, clock_hertz=_NANOSECONDS)
        if self._settings.markers and device.type == "cuda":
            self._guarded(lambda: self._open_device(device))
        return self._clock.hertz if self._clock else _NANOSECONDS

    def start(self, worker: Any, writer: RecordWriter) -> None:
        """Choose layers and mark their calls from now on."""
        if self._state in (InstrumentationState.FAILED, InstrumentationState.UNSUPPORTED):
            return
        if not self._settings.markers:
            self._reason = f"{MARKERS}=off"
        else:
            self._guarded(lambda: self._start(worker, writer))

    @property
    def layers(self) -> LayersProof:
        """How many MoE layers there are, and which are timed."""
        timed = (layer.number for layer in self._attached if layer.model is ModelRole.TARGET)
        return LayersProof(moe=self._moe_layers, sampled=tuple(timed))

    @property
    def markers(self) -> MarkersProof:
        """What times kernels now, and what it costs."""
        budget, sampler = self._settings.budget, self.sampler
        if sampler is None:
            return MarkersProof(state=self._state, reason=self._reason, budget_ratio=budget)
        is_on = sampler.state is InstrumentationState.ON
        return MarkersProof(
            state=sampler.state,
            reason="" if is_on else self._reason,
            budget_ratio=budget,
            backend=sampler.backend_name,
            path=sampler.path,
            pair_seconds=sampler.cost.pair_seconds,
            bias_seconds=sampler.cost.bias_seconds,
            overhead_ratio=sampler.overhead,
        )

    def close(self) -> None:
        """Put the layers back, and let go of the device."""
        for layer in self._attached.values():
            layers.detach(layer)
        if self.sampler:
            self.sampler.close()
            self.sampler = None

    def _guarded(self, work: Callable[[], None]) -> None:
        """Serving must survive whatever telemetry does."""
        try:
            work()
        except Unsupported as error:
            self._state, self._reason = (
                InstrumentationState.UNSUPPORTED,
                str(error)[:_LONGEST_REASON],
            )
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
            self._state, self._reason = InstrumentationState.FAILED, text
        else:
            return
        self._on_change(self._reason)

    def _open_device(self, device: Any) -> None:
        import torch

        from moe_serve.vllm_plugin.markers.device import clock_of, kind_of

        self._clock = clock_of(device)
        self.device = DeviceProof(
            type=kind_of(),
            clock_hertz=self._clock.hertz,
            name=torch.cuda.get_device_name(device),
            clock_source=self._clock.source,
        )

    def _start(self, worker: Any, writer: RecordWriter) -> None:
        config = worker.vllm_config
        parallel = getattr(config, "parallel_config", None)
        if getattr(parallel, "distributed_executor_backend", None) == "ray":
            # Its workers call the model runner past `Worker.execute_model`: no step is seen.
            raise Unsupported("served steps cannot be told apart under the Ray executor")
        found = _layers_of(worker)
        self._moe_layers = sum(layer.model is ModelRole.TARGET for layer in found)
        chosen = layers.sampled(found, self._settings.layers)
        if not chosen:
            wish = f"{LAYERS}={self._settings.layers}"
            raise Unsupported(f"none of this rank's {len(found)} MoE layers is in {wish}")
        backend, capturing = self._backend(worker, writer)
        try:
            sampler = Sampler(
                writer,
                backend,
                pairs=len(chosen),
                decode_graphs=lambda: separates_decode_graphs(config),
                budget=self._settings.budget,
                on_change=self._changed,
                capturing=capturing,
            )
            for as_what, layer in chosen.items():
                layers.attach(layer, as_what)
                self._attached[as_what] = layer
        except BaseException:
            backend.close()
            raise
        self.sampler = sampler
        self._state, self._reason = InstrumentationState.ON, ""

    def _backend(self, worker: Any, writer: RecordWriter) -> tuple[Backend, Callable[[], bool]]:
        if self._clock:
            import torch

            from moe_serve.vllm_plugin.markers.device import DeviceMarkers

            device = DeviceMarkers(writer, worker.device, clock=self._clock)
            return device, torch.cuda.is_current_stream_capturing
        if worker.device.type != "cpu":
            raise Unsupported(f"no markers for devices of type {worker.device.type}")
        if not worker.model_config.enforce_eager:
            raise Unsupported("on a CPU only eager calls can be timed: --enforce-eager")
        return HostMarkers(writer), lambda: False

    def _changed(self, reason: str | None) -> None:
        self._reason = (reason or self._reason)[:_LONGEST_REASON]
        self._on_change(reason)


def _layers_of(worker: Any) -> list[layers.MoeLayer]:
    compilation = worker.vllm_config.compilation_config
    return layers.moe_layers(
        compilation.static_all_moe_layers,
        compilation.static_forward_context,
        worker.model_runner.get_model(),
    )
