"""How a model's experts are quantised, as its configuration's `quantization_config` says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_serve.padding.shapes import Quant

_MXFP4_FORMAT = "mxfp4-pack-quantized"
_BLOCK = 32  # values that share a scale in MXFP4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertQuantization:
    """What a configuration says of the experts' weights.

    `name` None: they are not quantised. `scheme` None: they do not take the kernels that the
    contract knows, or the configuration does not say whether they do (`unclear`).
    """

    name: str | None = None
    scheme: Quant | None = None
    unclear: bool = False

    def refusal(self, source: str) -> str:
        """Why the experts cannot be judged by what the configuration says, and what to do."""
        if self.name is None:
            what = "its experts are not quantised (no quantization_config)"
        elif self.unclear:
            what = f"quantization_config says {self.name}, but not whether its experts are MXFP4"
        else:
            what = f"its experts are {self.name}, not MXFP4 (quantization_config)"
        return (
            f"{source}: {what}, so it is not known that they take AITER's MXFP4 kernels; give "
            "--quant to judge them as if they did"
        )


def read_quantization(places: Sequence[Mapping[str, object]]) -> ExpertQuantization:
    """What the first `quantization_config` in `places` says; none is there: not quantised."""
    for place in places:
        for key in ("quantization_config", "compression_config", "quantization"):
            found = place.get(key)
            if isinstance(found, Mapping):
                return _read(found)
            if found is not None:
                return ExpertQuantization(name=str(found)[:40], unclear=True)
    return ExpertQuantization()


def _read(config: Mapping[str, object]) -> ExpertQuantization:
    name = str(config.get("quant_method") or config.get("quant_algo") or "of no known method")[:40]
    method = name.lower()
    if method == "mxfp4":
        return ExpertQuantization(name="mxfp4", scheme=Quant.W4A16)
    if method == "quark":
        return _quark(config)
    if method == "compressed-tensors":
        return _compressed_tensors(config)
    return ExpertQuantization(name=name)


def _quark(config: Mapping[str, object]) -> ExpertQuantization:
    schemes = {_quark_scheme(group) for group in _quark_groups(config)}
    if len(schemes) != 1:
        return ExpertQuantization(name="quark", unclear=True)
    (scheme,) = schemes
    if isinstance(scheme, Quant):
        return ExpertQuantization(name=f"quark {scheme}", scheme=scheme)
    return ExpertQuantization(name=f"quark {scheme}"[:40], unclear=scheme is None)


def _quark_groups(config: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The configurations that experts have: their own where there are any, else the model's."""
    layers = config.get("layer_quant_config")
    named = layers if isinstance(layers, Mapping) else {}
    own = [group for pattern, group in named.items() if "expert" in str(pattern).lower()]
    for group in own or [config.get("global_quant_config")]:
        if isinstance(group, Mapping):
            yield group


def _quark_scheme(group: Mapping[str, object]) -> Quant | str | None:
    weight = _tensor(group.get("weight"))
    inputs = _tensor(group.get("input_tensors"))
    if weight is None:
        return None
    kind = str(weight.get("dtype")).lower()
    if kind != "fp4" or weight.get("group_size") not in (None, _BLOCK):
        return kind
    return _by_activation(None if inputs is None else str(inputs.get("dtype")).lower())


def _by_activation(kind: str | None) -> Quant | str:
    if kind is None:
        return Quant.W4A16
    if kind == "fp4":
        return Quant.W4A4
    return Quant.W4A8 if kind.startswith("fp8") else f"fp4 with {kind} activations"


def _tensor(found: object) -> Mapping[str, object] | None:
    """One tensor's specification; several are one only where they are equal."""
    if isinstance(found, list) and found and all(each == found[0] for each in found):
        found = found[0]
    return found if isinstance(found, Mapping) else None


def _compressed_tensors(config: Mapping[str, object]) -> ExpertQuantization:
    groups = config.get("config_groups")
    listed = (
        [g for g in groups.values() if isinstance(g, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    schemes = {_group_scheme(group, config.get("format")) for group in listed}
    if len(schemes) != 1:
        return ExpertQuantization(name="compressed-tensors", unclear=True)
    (scheme,) = schemes
    if isinstance(scheme, Quant):
        return ExpertQuantization(name=f"compressed-tensors {scheme}", scheme=scheme)
    return ExpertQuantization(name=f"compressed-tensors {scheme}"[:40])


def _group_scheme(group: Mapping[str, object], fmt: object) -> Quant | str:
    weights = _tensor(group.get("weights")) or {}
    bits, kind, size = (weights.get(key) for key in ("num_bits", "type", "group_size"))
    named = str(group.get("format") or fmt)
    if (bits, kind, size) != (4, "float", _BLOCK) or named not in (_MXFP4_FORMAT, "None"):
        return named if named != "None" else f"{kind}{bits}"
    inputs = _tensor(group.get("input_activations"))
    if inputs is None:
        return Quant.W4A16
    width = inputs.get("num_bits")
    return _by_activation(
        {4: "fp4", 8: "fp8"}.get(width if isinstance(width, int) else 0, str(width))
    )
