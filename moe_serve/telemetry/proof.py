"""What a worker proves in its record: the software, the pads of every call, and what is timed.

The plugin writes a `Proof`; exporter and preflight read it as foreign data. `from_json` takes all
of it or refuses it: a proof with one wrong value proves nothing. Standard library only, because it
runs inside vLLM (ADR 4).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin

VERSION = 1
LONGEST_TEXT = 2000
"""Characters of the longest text that is taken from a proof."""
_BEYOND = 2**63


class BadProof(ValueError):
    """A proof that cannot be taken: the message names the wrong value."""


class InstrumentationState(StrEnum):
    """Whether kernels are timed; all but ON are final, but OFF before the model is loaded."""

    ON = "on"
    OFF = "off"
    FAILED = "failed"
    OVER_BUDGET = "over_budget"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenIntermediate:
    """Elements of one rank: `hidden` dimension, `intermediate` neurons of an expert."""

    hidden: int
    intermediate: int

    def __str__(self) -> str:
        """`192/128`: hidden first, as AITER's arguments stand."""
        return f"{self.hidden}/{self.intermediate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRule:
    """One rule of the padding contract that the sent pads break."""

    id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProof:
    """One shape of fused-MoE call, its pads, and what they lose; elements are of one rank.

    `experts` are this rank's, `all_experts` the layer's. `bytes_ratio`: weight bytes that the
    decode kernel reads over those of the unpadded weights. `verified`: vLLM and AITER are releases
    whose source was read, else `unverified` says why not. `ksplit` is AITER_KSPLIT (0: AITER
    chooses), `tables_digest` the SHA-256 of a site's own AITER tables.
    """

    padded: HiddenIntermediate
    hidden: int
    live_neurons: int
    experts: int
    all_experts: int
    top_k: int
    quant: str
    path: str
    raw: HiddenIntermediate
    upstream: HiddenIntermediate
    sent: HiddenIntermediate
    lost_neurons: int
    loss_fraction: float
    bytes_ratio: float
    safe: bool
    verified: bool
    unverified: tuple[str, ...] = ()
    ksplit: int = 0
    tables_digest: str | None = None
    violations: tuple[BrokenRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphsProof:
    """Batch sizes that graphs are captured for, and the graphs' modes (`full`, `piecewise`)."""

    sizes: tuple[int, ...] = ()
    modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProof:
    """The device: `type` is `hip`, `cuda` or `cpu`; `clock_hertz` ticks per second."""

    type: str
    clock_hertz: int
    name: str | None = None
    clock_source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersProof:
    """MoE layers of the served model on this rank, and the numbers of those that are timed."""

    moe: int = 0
    sampled: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkersProof:
    """What times kernels, and its cost; `reason` says why it does not.

    `pair_seconds`: cost of a pair of markers; `bias_seconds`: what a pair measures with nothing
    between; `overhead_ratio`: share of a median step that all pairs cost.
    """

    state: InstrumentationState
    budget_ratio: float
    reason: str = ""
    backend: str | None = None
    path: str | None = None
    pair_seconds: float | None = None
    bias_seconds: float | None = None
    overhead_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """All that a worker proves. None: the worker could not find it out.

    `max_neuron_loss`: the share of live weights that the operator allows to lose.
    `intercepted_calls`: fused-MoE calls through the plugin, or fewer than there were.
    `untouched`: kinds of calls that the plugin left as they are. `fault`: why it does not work.
    """

    moe_serve: str
    policy: str
    max_neuron_loss: float
    intercepted_calls: int
    markers: MarkersProof
    vllm: str | None = None
    aiter: str | None = None
    torch: str | None = None
    worker_config_digest: str | None = None
    graphs: GraphsProof | None = None
    device: DeviceProof | None = None
    layers: LayersProof = field(default_factory=LayersProof)
    untouched: tuple[str, ...] = ()
    fault: str | None = None
    shapes: tuple[ShapeProof, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON's objects, lists and numbers; `version` first."""
        return {"version": VERSION, **asdict(self)}


def proof_from_json(value: Mapping[str, Any]) -> Proof:
    """A proof from what `to_json` gave.

    Raises:
        BadProof: another version, a value that is missing, of another type or out of range, or a
            key that is unknown.
    """
    version = value.get("version")
    if type(version) is not int or version != VERSION:
        raise BadProof(f"version: {_shown(version)} is unknown; this moe-serve reads {VERSION}")
    proof: Proof = _object(Proof, {key: value[key] for key in value if key != "version"}, "")
    return proof


def _value(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, UnionType):
        (inner,) = (each for each in get_args(kind) if each is not type(None))
        return None if value is None else _value(inner, value, path)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise BadProof(f"{path}: {_shown(value)} is not a list")
        (inner, _) = get_args(kind)
        return tuple(_value(inner, each, f"{path}[{n}]") for n, each in enumerate(value))
    if is_dataclass(kind):
        return _object(kind, value, f"{path}.")
    return _scalar(kind, value, path)


def _object(kind: Any, value: Any, prefix: str) -> Any:
    if not isinstance(value, Mapping):
        raise BadProof(f"{prefix.removesuffix('.')}: {_shown(value)} is not an object")
    known = {each.name: each for each in fields(kind)}
    strange = next((key for key in value if key not in known), None)
    if strange is not None:
        raise BadProof(f"{prefix}{_shown(strange)}: unknown key")
    # What `to_json` writes has every key.
    missing = next((name for name in known if name not in value), None)
    if missing is not None:
        raise BadProof(f"{prefix}{missing}: missing")
    return kind(**{key: _value(known[key].type, value[key], prefix + key) for key in known})


def _scalar(kind: Any, value: Any, path: str) -> Any:
    if issubclass(kind, StrEnum):
        wanted, fits = f"one of {', '.join(kind)}", isinstance(value, str) and value in list(kind)
    else:
        wanted, check = _SCALARS[kind]
        fits = check(value)
    if not fits:
        raise BadProof(f"{path}: {_shown(value)} is not {wanted}")
    return kind(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _BEYOND  # false of NaN too


def _is_text(value: Any) -> bool:
    # JSON may hold halves of characters, which no page can.
    is_short = isinstance(value, str) and len(value) <= LONGEST_TEXT
    return is_short and not any("\ud800" <= character <= "\udfff" for character in value)


_SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: type(value) is bool),
    int: ("a whole number, 0 or more", lambda value: type(value) is int and _is_number(value)),
    float: ("a number, 0 or more", _is_number),
    str: (f"text of at most {LONGEST_TEXT} characters", _is_text),
}


def _shown(value: Any) -> str:
    """A foreign value, short and in printable ASCII."""
    if isinstance(value, list | Mapping):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
