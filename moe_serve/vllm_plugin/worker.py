"""Follow a worker's life: open its record when it loads its model, know its real steps.

Only calls within `execute_model` count as served work, and not while the worker warms up or keeps
step with the other ranks. Steps are timed on a CPU, where the call returns when the work is done.
"""

import functools
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from moe_serve.telemetry.slots import BatchPhase
from moe_serve.vllm_plugin.session import Session, logger

MODULE = "vllm.v1.worker.gpu_worker"  # the CPU's worker is a subclass
_MARK = "__moe_serve_original__"

SessionOf = Callable[[], Session]


def patch(module: ModuleType, session: SessionOf) -> None:
    """Wrap the worker's methods; one that is missing is said, and its part of the proof lacks."""
    worker = getattr(module, "Worker", None)
    for name, wrap in _WRAPPERS.items():
        method = getattr(worker, name, None)
        if not callable(method):
            logger.error("moe-serve: %s has no Worker.%s; no proof and no totals", MODULE, name)
        elif not hasattr(method, _MARK):
            wrapped = wrap(method, session)
            setattr(wrapped, _MARK, method)
            setattr(worker, name, wrapped)


def unpatch(module: ModuleType) -> None:
    """Put vLLM's own methods back."""
    worker = getattr(module, "Worker", None)
    for name in _WRAPPERS:
        method = getattr(worker, name, None)
        if hasattr(method, _MARK):
            setattr(worker, name, getattr(method, _MARK))


def _load_model(method: Callable[..., Any], session: SessionOf) -> Callable[..., Any]:
    @functools.wraps(method)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        here = session()
        here.require_sound()
        here.open_record(self)
        result = method(self, *args, **kwargs)
        here.require_sound()  # loading a model imports what the plugin waits for
        # After vLLM's memory pools: graphs will hold addresses that sleep mode must not free.
        here.start_markers(self)
        return result

    return load_model


def _execute_model(method: Callable[..., Any], session: SessionOf) -> Callable[..., Any]:
    @functools.wraps(method)
    def execute_model(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        here = session()
        each = scheduler_output.num_scheduled_tokens
        if not each or here.unserved:
            # Without tokens a step only keeps pace with other ranks.
            with here.exclude_from_metrics():
                return method(self, scheduler_output, *args, **kwargs)
        decodes = max(each.values()) <= here.decode_width
        phase = BatchPhase.DECODE if decodes else BatchPhase.MIXED
        here.begin_step(phase)
        begun = time.perf_counter_ns()
        try:
            result = method(self, scheduler_output, *args, **kwargs)
        finally:
            took = time.perf_counter_ns() - begun if _is_cpu(self) else None
            here.end_step(phase, int(scheduler_output.total_num_scheduled_tokens), took)
        return result

    return execute_model


def _warm_up(method: Callable[..., Any], session: SessionOf) -> Callable[..., Any]:
    @functools.wraps(method)
    def compile_or_warm_up_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        with session().exclude_from_metrics():
            result = method(self, *args, **kwargs)
        session().warmed_up(self)
        return result

    return compile_or_warm_up_model


def _unserved(method: Callable[..., Any], session: SessionOf) -> Callable[..., Any]:
    @functools.wraps(method)
    def unserved(self: Any, *args: Any, **kwargs: Any) -> Any:
        with session().exclude_from_metrics():
            return method(self, *args, **kwargs)

    return unserved


def _is_cpu(worker: Any) -> bool:
    return bool(getattr(getattr(worker, "device", None), "type", None) == "cpu")


_WRAPPERS: dict[str, Callable[[Callable[..., Any], SessionOf], Callable[..., Any]]] = {
    "load_model": _load_model,
    "execute_model": _execute_model,
    # A warm-up may go through `execute_model` (the second model runner's does).
    "compile_or_warm_up_model": _warm_up,
    "execute_dummy_batch": _unserved,
}
