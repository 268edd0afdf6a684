"""Which MoE layers a loaded model has, which of them are timed, and when one of them runs."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from moe_serve.telemetry.slots import ModelRole

ALL, FIRST, LAST = "all", "first", "last"
WISH = re.compile(rf"({ALL}|{FIRST}|{LAST}|\d+)(,({ALL}|{FIRST}|{LAST}|\d+))*")
_NUMBER = re.compile(r"layers\.(\d+)\.")
_ENTRY = "_forward_impl"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeLayer:
    """One MoE layer: its number in its model, whose model that is, and what runs it."""

    number: int
    model: ModelRole
    runner: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A timed layer; `first` and `last` bound the window of a forward pass of the served model."""

    number: int
    model: ModelRole
    first: bool = False
    last: bool = False


# A context variable: the halves of a dual-batch-overlap step run in threads of their own.
running: ContextVar[Sampled | None] = ContextVar("moe_serve_layer_running", default=None)


def moe_layers(names: Sequence[str], found: Mapping[str, Any], target: Any) -> list[MoeLayer]:
    """Every MoE layer of this rank in the order of the forward pass.

    Args:
        names: vLLM's `static_all_moe_layers`.
        found: vLLM's `static_forward_context`.
        target: the served model; a layer that is no part of it belongs to the drafter.
    """
    own = {id(module) for module in target.modules()}
    layers = []
    for position, name in enumerate(names):
        layer = found[name]
        runner = getattr(layer, "runner", layer)
        number = _NUMBER.search(name)
        layers.append(
            MoeLayer(
                number=int(number[1]) if number else position,
                model=ModelRole.TARGET if {id(layer), id(runner)} & own else ModelRole.DRAFT,
                runner=runner,
            )
        )
    return layers


def sampled(layers: Iterable[MoeLayer], wish: str) -> dict[Sampled, MoeLayer]:
    """The layers that `wish` names (`first`, `last`, `all`, numbers), for each model apart."""
    words = wish.split(",")
    chosen: dict[Sampled, MoeLayer] = {}
    for model in ModelRole:
        each = [layer for layer in layers if layer.model is model]
        timed = [layer for layer in each if _wished(layer, each, words)]
        for layer in timed:
            # With a single layer the window would be that layer once more.
            bounds = model is ModelRole.TARGET and len(timed) > 1
            key = Sampled(
                number=layer.number,
                model=model,
                first=bounds and layer is timed[0],
                last=bounds and layer is timed[-1],
            )
            chosen[key] = layer
    return chosen


def _wished(layer: MoeLayer, each: Sequence[MoeLayer], words: Sequence[str]) -> bool:
    return (
        ALL in words
        or (FIRST in words and layer is each[0])
        or (LAST in words and layer is each[-1])
        or str(layer.number) in words
    )


def attach(layer: MoeLayer, as_what: Sampled) -> None:
    """Note in `running` when this layer runs; wraps the one instance, not vLLM's class.

    Raises:
        AttributeError: this vLLM's runner has no such method.
    """
    inner: Callable[..., Any] = getattr(layer.runner, _ENTRY)

    @functools.wraps(inner)
    def entry(*args: Any, **kwargs: Any) -> Any:
        token = running.set(as_what)
        try:
            return inner(*args, **kwargs)
        finally:
            running.reset(token)

    setattr(layer.runner, _ENTRY, entry)


def detach(layer: MoeLayer) -> None:
    """Undo `attach`."""
    vars(layer.runner).pop(_ENTRY, None)
