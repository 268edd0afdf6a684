"""From a call's own objects to what the contract judges."""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from moe_serve.errors import UnknownVllm, UsageError
from moe_serve.padding.aiter_eras import AiterEra
from moe_serve.padding.builds import UNKNOWN, Build
from moe_serve.padding.contract import Call
from moe_serve.padding.shapes import Activation, Layout, Pads, Quant, Shard
from moe_serve.padding.site_tables import SitePaths, read_ksplit
from moe_serve.padding.vllm_eras import VllmEra, vllm_build
from moe_serve.vllm_plugin.aiter_source import narrowed_build
from moe_serve.vllm_plugin.site import read_site

_CONFIG_FIELDS = (
    "hidden_dim_unpadded",
    "intermediate_size_per_partition",
    "intermediate_size_per_partition_unpadded",
    "tp_size",
    "num_local_experts",
    "experts_per_token",
)
_ACTIVATIONS = {"silu": Activation.SILU, "situ": Activation.SITU}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one call shows of its shape; two calls that are equal here get the same pads.

    `all_experts`: of the layer, on all ranks.
    """

    part: Shard
    all_experts: int
    quant: Quant
    activation: Activation
    layout: Layout
    bias: bool
    override: int | None
    upstream: Pads


def quant_of(quant_config: Any) -> Quant | None:
    """Which MXFP4 scheme a layer uses; None: another quantisation, which has no such pads."""
    if getattr(quant_config, "use_mxfp4_w4a16", False):
        return Quant.W4A16
    if getattr(quant_config, "use_mxfp4_w4a4", False):
        return Quant.W4A4
    return None


def activation_of(activation: Any) -> Activation:
    """Which activation a layer has, as far as padding cares."""
    name = str(getattr(activation, "value", activation)).lower()
    return _ACTIVATIONS.get(name, Activation.SWIGLUOAI)


def part_of(moe_config: Any, hidden_states: Any) -> Shard:
    """One rank's sizes from the layer's configuration and the input [tokens, padded hidden].

    Raises:
        UnknownVllm: the configuration lacks a field.
    """
    missing = [name for name in _CONFIG_FIELDS if getattr(moe_config, name, None) is None]
    if missing:
        raise UnknownVllm(f"moe_config has no {', '.join(missing)}")
    return Shard(
        hidden=moe_config.hidden_dim_unpadded,
        intermediate=moe_config.intermediate_size_per_partition_unpadded,
        padded_hidden=_hidden(hidden_states),
        padded_intermediate=moe_config.intermediate_size_per_partition,
        experts=moe_config.num_local_experts,
        top_k=moe_config.experts_per_token,
        moe_tp=moe_config.tp_size,
    )


def _hidden(hidden_states: Any) -> int:
    width = int(hidden_states.shape[1])
    # Packed MXFP4 activations hold two values a byte (vLLM 0.33, MoRI).
    return width * 2 if "float4_e2m1fn_x2" in str(hidden_states.dtype) else width


def layout_of(gate_mode: Any, quant: Quant) -> Layout:
    """The order of w13: as the call says, else as vLLM stores it for this quantisation."""
    if gate_mode:
        return Layout.SEPARATED if str(gate_mode).lower() == "separated" else Layout.INTERLEAVE
    return Layout.SEPARATED if quant is Quant.W4A4 else Layout.INTERLEAVE


def to_call(seen: Seen) -> Call:
    """The contract's question, with the versions installed here."""
    return Call(
        part=seen.part,
        vllm=installed_vllm(),
        aiter=installed_aiter(),
        quant=seen.quant,
        layout=seen.layout,
        activation=seen.activation,
        bias=seen.bias,
        override=seen.override,
        ksplit=declared_ksplit(),
        site=installed_tables(),
    )


@lru_cache(maxsize=1)
def declared_ksplit() -> int:
    """The value of `AITER_KSPLIT` in this worker.

    Raises:
        UnknownVllm: AITER could not read it either.
    """
    try:
        return read_ksplit(os.environ)
    except UsageError as error:
        raise UnknownVllm(str(error)) from error


@lru_cache(maxsize=1)
def installed_tables() -> SitePaths:
    """This site's own AITER tables and switches, as this worker's AITER reads them."""
    return read_site(os.environ)


@lru_cache(maxsize=1)
def installed_vllm() -> Build[VllmEra]:
    """The vLLM that runs here, by its own word: distributions of it have several names.

    Raises:
        UnknownVllm: its version is none that can be judged.
    """
    import vllm

    try:
        return vllm_build(vllm.__version__, what="vllm.__version__")
    except UsageError as error:
        raise UnknownVllm(str(error)) from error


@lru_cache(maxsize=1)
def installed_aiter() -> Build[AiterEra]:
    """AMD's AITER; if its version is not known, every release that its source may be of.

    Raises:
        UnknownVllm: its version is none that can be judged.
    """
    try:
        text = version("amd-aiter")
    except PackageNotFoundError:
        text = None
    try:
        return narrowed_build(text, what="amd-aiter")
    except UsageError as error:
        raise UnknownVllm(str(error)) from error


def versions() -> dict[str, str | None]:
    """The software that serves: `vllm`, `aiter`, `torch`; None where one is not known."""
    aiter = installed_aiter()
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = None
    found = None if aiter.text == UNKNOWN else aiter.text
    return {"vllm": installed_vllm().text, "aiter": found, "torch": torch}
