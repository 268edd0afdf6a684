"""Follow a worker's life: open its record when it loads its model, know its real steps.

Only calls within `execute_model` count as served work: profiling and warm-up runs take another
way. Steps are timed on a CPU, where the call returns when the work is done.
"""

import functools
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from moe_serve.telemetry.record import Mode, Rank
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
        here.open_record(_rank(self))
        result = method(self, *args, **kwargs)
        here.require_sound()  # loading a model imports what the plugin waits for
        return result

    return load_model


def _rank(worker: Any) -> Rank:
    parallel = worker.parallel_config
    tp, pp = int(parallel.tensor_parallel_size), int(parallel.pipeline_parallel_size)
    return Rank(
        dp=int(getattr(parallel, "data_parallel_rank", 0) or 0),
        pp=int(worker.rank) // tp % pp,
        tp=int(worker.rank) % tp,
    )


def _execute_model(method: Callable[..., Any], session: SessionOf) -> Callable[..., Any]:
    @functools.wraps(method)
    def execute_model(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        here = session()
        each = scheduler_output.num_scheduled_tokens
        if not each:
            return method(self, scheduler_output, *args, **kwargs)
        mode = Mode.DECODE if all(tokens == 1 for tokens in each.values()) else Mode.MIXED
        here.step = mode
        begun = time.perf_counter_ns()
        try:
            result = method(self, scheduler_output, *args, **kwargs)
        finally:
            here.step = None
        if _is_cpu(self):
            elapsed = time.perf_counter_ns() - begun
            here.count_step(mode, int(scheduler_output.total_num_scheduled_tokens), elapsed)
        return result

    return execute_model


def _is_cpu(worker: Any) -> bool:
    return bool(getattr(getattr(worker, "device", None), "type", None) == "cpu")


_WRAPPERS: dict[str, Callable[[Callable[..., Any], SessionOf], Callable[..., Any]]] = {
    "load_model": _load_model,
    "execute_model": _execute_model,
}
