"""A model's name as its sizes: built in, a folder, or what the Hugging Face cache already has.

Nothing is downloaded: what is not here is not known, and said so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.padding.models import ModelFacts, built_in, is_gpt_oss, quantization_of, read_config
from moe_serve.padding.quantization import ExpertQuantization
from moe_serve.padding.shapes import Quant

_NOT_QUANTISED = ExpertQuantization()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What is known of a model. `unknown` says why its pads cannot be judged; then `facts` is None.

    `quantization`: what its configuration says of its experts' weights.
    """

    name: str
    gpt_oss: bool
    quantization: ExpertQuantization = _NOT_QUANTISED
    facts: ModelFacts | None = None
    unknown: str | None = None


def find_model(name: str, environment: Mapping[str, str]) -> ModelFiles:
    """What is known here of the model that vLLM would load as `name`."""
    known = built_in(name) if not Path(name).exists() else None
    if known is not None:
        return ModelFiles(name=name, gpt_oss=True, quantization=known.quantization, facts=known)
    path = config_of(name, environment)
    if path is None:
        return ModelFiles(
            name=name, gpt_oss="gpt-oss" in name, unknown=f"no config.json of {name} here"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise UsageError(f"{path}: it does not hold a JSON object")
        return _judged(name, config)
    except (OSError, ValueError, RecursionError, UsageError) as error:
        return ModelFiles(
            name=name, gpt_oss="gpt-oss" in name, unknown=" ".join(str(error).split())
        )


def _judged(name: str, config: Mapping[str, object]) -> ModelFiles:
    gpt_oss, quantization = is_gpt_oss(config), quantization_of(config)
    try:
        # Whether its quantisation can be judged is asked where it is known what will run it.
        facts = read_config(config, source=name, quant=quantization.scheme or Quant.W4A16)
    except UsageError as error:
        return ModelFiles(name=name, gpt_oss=gpt_oss, quantization=quantization, unknown=str(error))
    return ModelFiles(name=name, gpt_oss=gpt_oss, quantization=quantization, facts=facts)


def config_of(name: str, environment: Mapping[str, str]) -> Path | None:
    """The configuration of the model that vLLM would load as `name`; None: there is none here.

    `name` is a file, a folder, or a model that the Hugging Face cache holds.
    """
    if "\0" in name or not name:
        return None
    here = Path(name)
    hub = _hub(environment) / f"models--{name.replace('/', '--')}"
    candidates = [here, here / "config.json", *sorted(hub.glob("snapshots/*/config.json"))]
    return next((path for path in candidates if path.is_file()), None)


def _hub(environment: Mapping[str, str]) -> Path:
    if environment.get("HF_HUB_CACHE"):
        return Path(environment["HF_HUB_CACHE"])
    home = environment.get("HF_HOME") or f"{environment.get('HOME', '')}/.cache/huggingface"
    return Path(home) / "hub"
