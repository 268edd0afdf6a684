"""Send the contract's pads: wraps the two functions of vLLM that lead to AITER's fused MoE.

`rocm_aiter_fused_experts` knows the layer's live sizes, `rocm_aiter_ops.fused_moe` gets the pads.
Both are wrapped or neither is; where they do not look as known, a guard refuses to serve.
"""

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from moe_serve.errors import UnknownVllm
from moe_serve.padding.shapes import Activation, Pads
from moe_serve.vllm_plugin.calls import ByName, by_name
from moe_serve.vllm_plugin.session import Session
from moe_serve.vllm_plugin.settings import PADDING
from moe_serve.vllm_plugin.shape import Seen, activation_of, layout_of, part_of, quant_of

MODULE = "vllm.model_executor.layers.fused_moe.experts.rocm_aiter_moe"
EXPERTS = "rocm_aiter_fused_experts"
OPS, FUSED_MOE = "rocm_aiter_ops", "fused_moe"
_EXPERTS_ARGUMENTS = ("hidden_states", "moe_config", "activation", "quant_config")
_FUSED_MOE_ARGUMENTS = ("hidden_states", "hidden_pad", "intermediate_pad", "bias1")
_MARK = "__moe_serve_original__"

SessionOf = Callable[[], Session]
_layer: ContextVar[tuple[Any, Any, Any] | None] = ContextVar("moe_serve_layer", default=None)


@dataclass(frozen=True, slots=True)
class _Found:
    """vLLM's two functions, and how to read their calls."""

    experts: Callable[..., Any]
    experts_call: ByName
    fused_moe: Callable[..., Any]
    fused_moe_call: ByName


def patch(module: ModuleType, session: SessionOf) -> None:
    """Wrap both functions as `module` reaches them; where that cannot be, guard the first one."""
    experts = getattr(module, EXPERTS, None)
    if experts is not None and hasattr(experts, _MARK):
        return
    try:
        found = _find(module)
    except UnknownVllm as error:
        session().fault = refusal(error)
        if experts is not None:
            replace_everywhere(module, experts, _guard(experts, refusal(error)))
        return
    setattr(getattr(module, OPS), FUSED_MOE, staticmethod(_wrap_fused_moe(found, session)))
    replace_everywhere(module, found.experts, _wrap_experts(found))


def replace_everywhere(
    module: ModuleType, old: Callable[..., Any], new: Callable[..., Any]
) -> None:
    """Put `new` in the place of `old`, in `module` and in all that imported `old` by name.

    Models import the function at their top and so hold names of their own. Which of them do so
    changes with vLLM's releases; those that are loaded later import the new function.
    """
    for holder in {id(each): each for each in (module, *tuple(sys.modules.values()))}.values():
        names = getattr(holder, "__dict__", None)
        if isinstance(names, dict):
            for name in [name for name, value in tuple(names.items()) if value is old]:
                setattr(holder, name, new)


def unpatch(module: ModuleType) -> None:
    """Put vLLM's own functions back."""
    experts = getattr(module, EXPERTS, None)
    if experts is not None and hasattr(experts, _MARK):
        replace_everywhere(module, experts, getattr(experts, _MARK))
    ops = getattr(module, OPS, None)
    fused_moe = getattr(ops, FUSED_MOE, None)
    if fused_moe is not None and hasattr(fused_moe, _MARK):
        setattr(ops, FUSED_MOE, staticmethod(getattr(fused_moe, _MARK)))


def _find(module: ModuleType) -> _Found:
    experts = getattr(module, EXPERTS, None)
    fused_moe = getattr(getattr(module, OPS, None), FUSED_MOE, None)
    for name, function in ((EXPERTS, experts), (f"{OPS}.{FUSED_MOE}", fused_moe)):
        if not callable(function):
            raise UnknownVllm(f"{module.__name__} has no {name}")
    assert experts is not None
    assert fused_moe is not None
    return _Found(
        experts=experts,
        experts_call=by_name(experts, EXPERTS, _EXPERTS_ARGUMENTS),
        fused_moe=fused_moe,
        fused_moe_call=by_name(fused_moe, f"{OPS}.{FUSED_MOE}", _FUSED_MOE_ARGUMENTS),
    )


def refusal(error: UnknownVllm) -> UnknownVllm:
    """The error with what to do about it."""
    return UnknownVllm(
        f"this vLLM is not known, so its pads cannot be judged: {error}. "
        f"Set {PADDING}=off to serve with stock vLLM, or use a known release"
    )


def _guard(experts: Callable[..., Any], error: UnknownVllm) -> Callable[..., Any]:
    @functools.wraps(experts)
    def guarded(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    setattr(guarded, _MARK, experts)
    return guarded


def _wrap_experts(found: _Found) -> Callable[..., Any]:
    call = found.experts_call

    @functools.wraps(found.experts)
    def rocm_aiter_fused_experts(*args: Any, **kwargs: Any) -> Any:
        token = _layer.set(
            (
                call.get(args, kwargs, "moe_config"),
                call.get(args, kwargs, "activation"),
                call.get(args, kwargs, "quant_config"),
            )
        )
        try:
            return found.experts(*args, **kwargs)
        finally:
            _layer.reset(token)

    setattr(rocm_aiter_fused_experts, _MARK, found.experts)
    return rocm_aiter_fused_experts


def _wrap_fused_moe(found: _Found, session: SessionOf) -> Callable[..., Any]:
    call = found.fused_moe_call

    @functools.wraps(found.fused_moe)
    def fused_moe(*args: Any, **kwargs: Any) -> Any:
        here = session()
        try:
            pads = _pads(here, call, args, kwargs)
        except UnknownVllm as error:
            raise refusal(error) from error
        if pads is not None:
            values = {"hidden_pad": pads.hidden, "intermediate_pad": pads.intermediate}
            args, kwargs = call.put(args, kwargs, values)  # type: ignore[assignment]
        if here.markers is None:
            return found.fused_moe(*args, **kwargs)
        marked = here.markers.begin(int(call.get(args, kwargs, "hidden_states").shape[0]))
        result = found.fused_moe(*args, **kwargs)
        if marked is not None:
            here.markers.end(marked)
        return result

    setattr(fused_moe, _MARK, found.fused_moe)
    return fused_moe


def _pads(here: Session, call: ByName, args: Any, kwargs: Any) -> Pads | None:
    """The pads to send in this call; None: leave it as it is."""
    upstream = Pads(
        hidden=int(call.get(args, kwargs, "hidden_pad") or 0),
        intermediate=int(call.get(args, kwargs, "intermediate_pad") or 0),
    )
    layer = _layer.get()
    if layer is None or layer[0] is None:
        _require_no_pads(here, upstream)
        return None
    moe_config, activation, quant_config = layer
    quant = quant_of(quant_config)
    if quant is None:
        here.leave("experts that are not MXFP4")
        return None
    if activation_of(activation) is Activation.SITU:
        here.leave("experts with the activation situ, which have kernels of their own")
        return None
    part = part_of(moe_config, call.get(args, kwargs, "hidden_states"))
    if part.raw == upstream == Pads(hidden=0, intermediate=0):
        here.leave("experts whose sizes need no padding")
        return None
    return here.pads(
        Seen(
            part=part,
            all_experts=int(getattr(moe_config, "num_experts", None) or part.experts),
            quant=quant,
            activation=activation_of(activation),
            layout=layout_of(call.get(args, kwargs, "gate_mode"), quant),
            bias=call.get(args, kwargs, "bias1") is not None,
            override=getattr(moe_config, "intermediate_pad", None),
            upstream=upstream,
        )
    )


def _require_no_pads(here: Session, upstream: Pads) -> None:
    if upstream == Pads(hidden=0, intermediate=0):
        here.leave("calls that bring no layer configuration and no pads")
        return
    raise UnknownVllm(
        f"a fused-MoE call with pads {upstream} came without its layer's configuration"
    )
