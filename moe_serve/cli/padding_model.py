"""The flags of `moe-serve padding` that name a model and this site's AITER, read into facts."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from moe_serve.cli.parsing import at_least
from moe_serve.errors import UsageError
from moe_serve.padding.models import BUILT_IN, ModelFacts, built_in, read_config
from moe_serve.padding.quantization import ExpertQuantization
from moe_serve.padding.shapes import Activation, Layout, ModelDims, Quant
from moe_serve.padding.site_tables import KSPLIT, TABLES, SitePaths, parse_ksplit, read_ksplit
from moe_serve.preflight.models import config_of
from moe_serve.vllm_plugin.site import read_site

_SIZE_FLAGS = ("hidden", "intermediate", "experts", "top_k")
_ACTIVATIONS = (Activation.SILU, Activation.SWIGLUOAI)


def add_model_flags(verb: argparse.ArgumentParser) -> None:
    """The flags that say which model, and what of its experts its configuration does not say."""
    model = verb.add_argument_group("model (one of --model, or all four sizes)")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=f"{', '.join(BUILT_IN)}, a model in the Hugging Face cache, a config.json under any "
        "name, or the folder that holds one",
    )
    model.add_argument("--hidden", type=at_least(1), metavar="N", help="the experts' input size")
    model.add_argument("--intermediate", type=at_least(1), metavar="N", help="neurons per expert")
    model.add_argument("--experts", type=at_least(1), metavar="N", help="experts in the model")
    model.add_argument("--top-k", type=at_least(1), metavar="N", help="experts per token")
    model.add_argument(
        "--quant",
        choices=[quant.value for quant in Quant],
        help="how the experts run (default: as the model's configuration says; w4a16 for sizes)",
    )
    model.add_argument(
        "--activation",
        choices=[activation.value for activation in _ACTIVATIONS],
        help="of the experts (default: as the model's configuration says; swigluoai for sizes)",
    )
    model.add_argument(
        "--layout",
        choices=[layout.value for layout in Layout],
        help="order of w13's rows (default: interleave for w4a16, separated for w4a4)",
    )
    model.add_argument(
        "--ksplit",
        metavar="N",
        help=f"the value of {KSPLIT} that AITER will see (default: this environment's; 0: AITER "
        "chooses)",
    )
    model.add_argument(
        "--tuned",
        action="append",
        metavar="FILE",
        help=f"a tuned MoE table that AITER will read (default: ${TABLES}); may be repeated",
    )


def read_ksplit_flag(flag: str | None) -> int:
    """The value of `AITER_KSPLIT` by its flag, else by this environment."""
    return read_ksplit(os.environ) if flag is None else parse_ksplit(flag, what="--ksplit")


def read_tables(tables: list[str] | None) -> SitePaths:
    """The tuned tables by their flag, else by this environment.

    Raises:
        UsageError: a named file is not there.
    """
    if tables is None:
        return read_site(os.environ)
    missing = [name for name in tables if not Path(name).is_file()]
    if missing:
        raise UsageError(f"--tuned {missing[0]}: there is no such file")
    return read_site({**os.environ, TABLES: os.pathsep.join(tables)})


def quant_of(args: argparse.Namespace, model: ModelFacts) -> Quant:
    """How the experts run: by the flag, else as the model says."""
    return Quant(args.quant) if args.quant else model.quantization.scheme or Quant.W4A16


def read_model(args: argparse.Namespace) -> ModelFacts:
    """The model that the flags name.

    Raises:
        UsageError: none, two of them, or one that is not understood.
    """
    sizes = {name: getattr(args, name) for name in _SIZE_FLAGS}
    given = [_flag(name) for name, value in sizes.items() if value is not None]
    if args.model is not None and given:
        raise UsageError(f"--model {args.model} and {', '.join(given)}: give one or the other")
    if given:
        missing = [_flag(name) for name, value in sizes.items() if value is None]
        if missing:
            raise UsageError(f"{', '.join(missing)}: missing; sizes need all four flags")
        return _from_sizes(args.activation, sizes)
    if not args.model:
        raise UsageError(
            f"--model: no model is named; give {', '.join(BUILT_IN)}, the path of a config.json, "
            "or --hidden, --intermediate, --experts and --top-k"
        )
    return _named(args)


def _from_sizes(activation: str | None, sizes: Mapping[str, int]) -> ModelFacts:
    chosen = Activation(activation or Activation.SWIGLUOAI)
    dims = ModelDims(
        name="flags",
        hidden=sizes["hidden"],
        intermediate=sizes["intermediate"],
        experts=sizes["experts"],
        top_k=sizes["top_k"],
        activation=chosen,
    )
    quantization = ExpertQuantization(name="mxfp4", scheme=Quant.W4A16)
    return ModelFacts(name="flags", dims=(dims,), quantization=quantization)


def _named(args: argparse.Namespace) -> ModelFacts:
    known = built_in(args.model) if not Path(args.model).exists() else None
    if known is not None:
        return known
    path = config_of(args.model, os.environ)
    if path is None:
        raise UsageError(
            f"--model {args.model}: no such model, file or folder with a config.json; give "
            f"{', '.join(BUILT_IN)}, or the path of a config.json"
        )
    return read_config(
        _read_config(args.model, path),
        source=args.model,
        quant=Quant(args.quant) if args.quant else None,
        activation=Activation(args.activation) if args.activation else None,
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read_config(model: str, path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--model {model}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:80]
        raise UsageError(f"--model {model}: {path.name} is not JSON ({why})") from error
    if not isinstance(config, dict):
        raise UsageError(f"--model {model}: {path.name} does not hold a JSON object")
    return config
