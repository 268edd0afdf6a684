"""A model's name as its sizes: built in, a folder, or what the Hugging Face cache already has.

Nothing is downloaded: what is not here is not known, and said so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.padding.models import BUILT_IN, dims_from_config
from moe_serve.padding.shapes import ModelDims

_OWNER = "openai/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What is known of a model. `unknown` says why its pads cannot be judged; then `dims` is None.

    `quant`: what its configuration calls its quantisation; None: its weights are not quantised.
    """

    name: str
    gpt_oss: bool
    quant: str | None = None
    dims: ModelDims | None = None
    unknown: str | None = None


def find_model(name: str, environment: Mapping[str, str]) -> ModelFiles:
    """What is known here of the model that vLLM would load as `name`."""
    built_in = BUILT_IN.get(name.removeprefix(_OWNER))
    if built_in is not None and not Path(name).exists():
        return ModelFiles(name=name, gpt_oss=True, quant="mxfp4", dims=built_in)
    path = _config(name, environment)
    if path is None:
        return ModelFiles(
            name=name, gpt_oss="gpt-oss" in name, unknown=f"no config.json of {name} here"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise UsageError(f"{path}: it does not hold a JSON object")
        return _judged(name, config)
    except (OSError, ValueError, UsageError) as error:
        return ModelFiles(
            name=name, gpt_oss="gpt-oss" in name, unknown=" ".join(str(error).split())
        )


def _judged(name: str, config: Mapping[str, object]) -> ModelFiles:
    gpt_oss = config.get("model_type") == "gpt_oss"
    quantization = config.get("quantization_config")
    quant = str(quantization.get("quant_method")) if isinstance(quantization, Mapping) else None
    try:
        dims = dims_from_config(config, source=name)
    except UsageError as error:
        return ModelFiles(name=name, gpt_oss=gpt_oss, quant=quant, unknown=str(error))
    return ModelFiles(name=name, gpt_oss=gpt_oss, quant=quant, dims=dims)


def _config(name: str, environment: Mapping[str, str]) -> Path | None:
    here = Path(name)
    candidates = [here if here.name == "config.json" else here / "config.json"]
    hub = _hub(environment) / f"models--{name.replace('/', '--')}"
    candidates += sorted(hub.glob("snapshots/*/config.json"))
    return next((path for path in candidates if path.is_file()), None)


def _hub(environment: Mapping[str, str]) -> Path:
    if environment.get("HF_HUB_CACHE"):
        return Path(environment["HF_HUB_CACHE"])
    home = environment.get("HF_HOME") or f"{environment.get('HOME', '')}/.cache/huggingface"
    return Path(home) / "hub"
