"""Model sizes: the built-in GPT-OSS models, and any other from its `config.json`."""

from collections.abc import Mapping

from moe_serve.errors import UsageError
from moe_serve.padding.shapes import Activation, ModelDims

_GPT_OSS = "gpt_oss"

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

# Each size under the names that Hugging Face configurations use, most specific first.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size",),
    "intermediate": ("moe_intermediate_size", "intermediate_size"),
    "experts": ("num_local_experts", "n_routed_experts", "num_experts"),
    "top_k": ("num_experts_per_tok", "experts_per_token", "num_experts_per_token"),
}


def dims_from_config(config: Mapping[str, object], *, source: str) -> ModelDims:
    """Sizes from a Hugging Face configuration; `source` names it in errors.

    Raises:
        UsageError: a size is missing, or is not a positive whole number.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = text
    sizes = {name: _size(config, keys, source) for name, keys in _KEYS.items()}
    gpt_oss = config.get("model_type") == _GPT_OSS
    return ModelDims(
        name=source,
        **sizes,
        activation=Activation.SWIGLUOAI if gpt_oss else _activation(config, source),
        bias=True if gpt_oss else None,
    )


def _size(config: Mapping[str, object], keys: tuple[str, ...], source: str) -> int:
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{source}: {key} is {value!r}; it must be a whole number above 0")
        return value
    raise UsageError(
        f"{source}: no {' or '.join(keys)}; this is not the configuration of an MoE model"
    )


def _activation(config: Mapping[str, object], source: str) -> Activation:
    name = config.get("hidden_act", "silu")
    allowed = {"silu": Activation.SILU, "swigluoai": Activation.SWIGLUOAI, "swish": Activation.SILU}
    if not isinstance(name, str) or name not in allowed:
        raise UsageError(
            f"{source}: hidden_act is {name!r}; known are {', '.join(sorted(allowed))}"
        )
    return allowed[name]
