"""Model sizes: the built-in GPT-OSS models, and any other from its `config.json`.

A configuration is read by the keys that Hugging Face models use. What is not understood is an
error that names the key: nothing is guessed, and no model is said to be no MoE.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.quantization import ExpertQuantization, read_quantization
from moe_serve.padding.shapes import LARGEST_SIZE, Activation, ModelDims, Quant

_GPT_OSS = "gpt_oss"
_OWNER = "openai/"

BUILT_IN: Mapping[str, ModelDims] = {
    name: ModelDims(
        name=name,
        hidden=2880,
        intermediate=2880,
        experts=experts,
        top_k=4,
        activation=Activation.SWIGLUOAI,
        bias=True,
    )
    for name, experts in (("gpt-oss-120b", 128), ("gpt-oss-20b", 32))
}

# Where a multimodal model's language model is described, in the order of preference.
_NESTS: Sequence[Sequence[str]] = (
    ("text_config",),
    ("llm_config",),
    ("language_config",),
    ("thinker_config", "text_config"),
    ("thinker_config",),
    (),
)
# Others that may hold experts which are not judged.
_OTHER_NESTS: Sequence[Sequence[str]] = (("talker_config", "text_config"), ("talker_config",))
# DBRX keeps its experts' sizes one level below.
_SECTION = "ffn_config"

# The experts' own sizes under each name that models use; equal meaning, so they must agree.
_EXPERTS = (
    "num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts",
    "num_routed_experts", "num_moe_experts",
)  # fmt: skip
_TOP_K = (
    "num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_k", "moe_topk",
    "moe_top_k", "top_k_experts", "num_selected_experts", "moe_router_topk",
)  # fmt: skip
# The experts' own width first; the model's counts only where there is none.
_WIDTHS = (
    ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size",
     "expert_intermediate_size", "expert_hidden_dim"),
    ("intermediate_size", "ffn_hidden_size"),
)  # fmt: skip
_HIDDEN = (
    ("routed_expert_hidden_size", "moe_latent_size"),
    ("hidden_size", "d_model", "n_embd"),
)
_ACTIVATION = (
    "hidden_act", "hidden_activation", "mlp_hidden_act", "moe_hidden_act", "expert_act",
    "ffn_act_fn", "activation_function", "act_fn",
)  # fmt: skip
_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "swiglu": Activation.SILU,
    "swigluoai": Activation.SWIGLUOAI,
    "swigluoai_uninterleave": Activation.SWIGLUOAI,
    "situ": Activation.SITU,
}
_SHARED = (
    "num_shared_experts", "n_shared_experts", "moe_num_shared_experts", "num_shared_expert",
    "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
)  # fmt: skip
_DENSE = (
    "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", "mlp_only_layers",
    "moe_layers_enum",
)  # fmt: skip
_MOST_VARIANTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a configuration says of a model's experts.

    `dims`: the sizes, one for each kind of experts where layers differ. `quantization`: of their
    weights. `notes`: what of the model is not judged, a sentence each.
    """

    name: str
    dims: tuple[ModelDims, ...]
    quantization: ExpertQuantization
    notes: tuple[str, ...] = ()
    gpt_oss: bool = False


def built_in(name: str) -> ModelFacts | None:
    """The facts of a model that is known by name, with or without its owner; None: no such one."""
    dims = BUILT_IN.get(name.removeprefix(_OWNER))
    if dims is None:
        return None
    quantization = ExpertQuantization(name="mxfp4", scheme=Quant.W4A16)
    return ModelFacts(name=name, dims=(dims,), quantization=quantization, gpt_oss=True)


def read_config(
    config: Mapping[str, object],
    *,
    source: str,
    quant: Quant | None = None,
    activation: Activation | None = None,
) -> ModelFacts:
    """Facts from a Hugging Face configuration; `source` names it in errors.

    `quant` and `activation` are what the caller says of the experts, whatever the configuration
    says; None: the configuration has to say it.

    Raises:
        UsageError: a size or the activation is missing, contradictory, or none that is possible;
            or the experts are not MXFP4.
    """
    place = _language_model(config)
    sizes = _variants(place, source)
    quantization = quantization_of(config)
    if quant is None and quantization.scheme is None:
        raise UsageError(quantization.refusal(source))
    gpt_oss = is_gpt_oss(config)
    chosen = activation or (Activation.SWIGLUOAI if gpt_oss else _activation(place, source))
    return ModelFacts(
        name=source,
        dims=tuple(
            ModelDims(
                name=source if number == 0 else f"{source} ({width} neurons)",
                hidden=hidden,
                intermediate=width,
                experts=experts,
                top_k=top_k,
                activation=chosen,
                bias=True if gpt_oss else None,
            )
            for number, (hidden, width, experts, top_k) in enumerate(sizes)
        ),
        quantization=quantization,
        notes=tuple(_notes(config, place)),
        gpt_oss=gpt_oss,
    )


def _language_model(config: Mapping[str, object]) -> Mapping[str, object]:
    for place in _nested(config):
        if any(place.get(key) is not None for key in _EXPERTS):
            return place
    return config


def _nested(config: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for nest in _NESTS:
        place = _at(config, nest)
        if place is not None:
            section = place.get(_SECTION)
            yield {**section, **place} if isinstance(section, Mapping) else place


def _at(config: Mapping[str, object], nest: Sequence[str]) -> Mapping[str, object] | None:
    for key in nest:
        found = config.get(key)
        if not isinstance(found, Mapping):
            return None
        config = found
    return config


def quantization_of(config: Mapping[str, object]) -> ExpertQuantization:
    """How the configuration says that the experts are quantised."""
    return read_quantization((config, *_nested(config)))


def is_gpt_oss(config: Mapping[str, object]) -> bool:
    """Whether the configuration is of a GPT-OSS model."""
    return _GPT_OSS in (config.get("model_type"), _language_model(config).get("model_type"))


def _variants(place: Mapping[str, object], source: str) -> Sequence[Sequence[int]]:
    hidden = _first(place, _HIDDEN, source)
    if len(set(hidden)) > 1:
        raise UsageError(f"{source}: the experts' hidden sizes differ: {_distinct(hidden)}")
    widths = _first(place, _WIDTHS, source)
    experts, top_k = _agreed(place, _EXPERTS, source), _agreed(place, _TOP_K, source)
    return _combined(source, hidden, widths, experts, top_k)


def _combined(source: str, *lists: Sequence[int]) -> Sequence[Sequence[int]]:
    """The distinct combinations, layer by layer; a single number is every layer's."""
    lengths = {len(values) for values in lists if len(set(values)) > 1}
    if len(lengths) > 1:
        shown = "; ".join(_distinct(values) for values in lists)
        raise UsageError(f"{source}: lists of sizes have different lengths: {shown}")
    count = lengths.pop() if lengths else 1
    rows = [values if len(values) == count else [values[0]] * count for values in lists]
    found = list(dict.fromkeys(zip(*rows, strict=True)))
    if len(found) > _MOST_VARIANTS:
        raise UsageError(
            f"{source}: its layers have {len(found)} different sizes of experts, more than "
            f"{_MOST_VARIANTS}; give one of them by --hidden, --intermediate, --experts, --top-k"
        )
    return found


def _first(
    place: Mapping[str, object], groups: Sequence[Sequence[str]], source: str
) -> Sequence[int]:
    for keys in groups:
        if any(place.get(key) is not None for key in keys):
            return _agreed(place, keys, source)
    raise _missing(source, [key for keys in groups for key in keys])


def _agreed(place: Mapping[str, object], keys: Sequence[str], source: str) -> Sequence[int]:
    given = {key: _sizes(key, place[key], source) for key in keys if place.get(key) is not None}
    if not given:
        raise _missing(source, keys)
    values = list(given.values())
    if any(set(each) != set(values[0]) for each in values):
        said = ", ".join(f"{key} is {_distinct(each)}" for key, each in given.items())
        raise UsageError(f"{source}: it contradicts itself: {said}")
    return max(values, key=len)


def _missing(source: str, keys: Sequence[str]) -> UsageError:
    return UsageError(
        f"{source}: no {' or '.join(keys)}, so its experts' sizes are not known; give --hidden, "
        "--intermediate, --experts and --top-k instead"
    )


def _sizes(key: str, value: object, source: str) -> Sequence[int]:
    """One size, or one for each layer: a 0 among them is a layer without experts."""
    values = value if isinstance(value, list) else [value]
    sizes = [each for each in values if each != 0 or each is False or len(values) == 1]
    for each in sizes or [value]:
        if not _is_size(each):
            raise UsageError(
                f"{source}: {key} is {_short(value)}; it must be a whole number above 0 and at "
                f"most {LARGEST_SIZE}"
            )
    found = [each for each in sizes if isinstance(each, int)]
    return found if len(set(found)) > 1 else found[:1]


def _is_size(value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and 1 <= value <= LARGEST_SIZE  # type: ignore[operator]


def _distinct(values: Sequence[int]) -> str:
    found = list(dict.fromkeys(values))
    return ", ".join(map(str, found[:_MOST_VARIANTS])) + (", ..." if len(found) > 8 else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _activation(place: Mapping[str, object], source: str) -> Activation:
    given = {key: _name(place[key]) for key in _ACTIVATION if place.get(key) is not None}
    names = set(given.values())
    if len(names) != 1:
        said = ", ".join(f"{key} {_short(name)}" for key, name in given.items())
        what = f"its activations differ ({said})" if said else f"no {' or '.join(_ACTIVATION[:3])}"
        raise UsageError(f"{source}: {what}; give --activation silu or swigluoai")
    ((key, name),) = list(given.items())[:1]
    if name not in _ACTIVATIONS:
        raise UsageError(
            f"{source}: {key} is {_short(name)}, whose kernels are not known here; known are "
            f"silu and swigluoai"
        )
    return _ACTIVATIONS[name]


def _name(found: object) -> str:
    if isinstance(found, Mapping):  # DBRX: {"name": "silu"}
        found = found.get("name")
    return found.lower() if isinstance(found, str) else repr(found)


def _notes(config: Mapping[str, object], place: Mapping[str, object]) -> Iterator[str]:
    hidden = [place[key] for key in _HIDDEN[0] if place.get(key) is not None]
    if hidden and place.get("hidden_size") is not None:
        yield f"the experts are {hidden[0]} wide, the model {place['hidden_size']}"
    shared = [f"{key} {_short(_one(place[key]))}" for key in _SHARED if _there(place.get(key))]
    if shared:
        yield f"shared experts are layers of their own and not judged ({', '.join(shared)})"
    dense = [f"{key} {_short(_one(place[key]))}" for key in _DENSE if _there(place.get(key))]
    if dense:
        yield f"dense layers have no experts and are not judged ({', '.join(dense)})"
    for nest in _OTHER_NESTS:
        other = _at(config, nest)
        if other is not None and any(other.get(key) is not None for key in _EXPERTS):
            yield f"{'.'.join(nest)} has experts of its own, which are not judged"


def _one(value: object) -> object:
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        return value[0]
    return value


def _there(value: object) -> bool:
    return value not in (None, 0, False, "", [])
