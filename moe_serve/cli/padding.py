"""`moe-serve padding explain|check`: what a deployment's pads do, before it is deployed."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from moe_serve.cli.parsing import add_output, at_least, fraction
from moe_serve.errors import UsageError
from moe_serve.padding import aiter_eras, vllm_eras
from moe_serve.padding.contract import Call, Policy, Report, assess
from moe_serve.padding.models import BUILT_IN, dims_from_config
from moe_serve.padding.report import to_json, to_text
from moe_serve.padding.shapes import Layout, ModelDims, Parallelism, Quant, shard

_SIZE_FLAGS = ("hidden", "intermediate", "experts", "top_k")


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add `explain` and `check` below `padding`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="explain|check")
    for name, text, run in (
        ("explain", "what each kernel makes of the pads, and what that costs", explain),
        ("check", "the same as a gate: exit 0 if safe, 1 if not", check),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        _add_flags(verb)
        verb.set_defaults(run=run)


def _add_flags(verb: argparse.ArgumentParser) -> None:
    model = verb.add_argument_group("model (one of --model, or all four sizes)")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help=f"{', '.join(BUILT_IN)}, or a config.json or the folder that holds one",
    )
    model.add_argument("--hidden", type=at_least(1), metavar="N", help="model dimension")
    model.add_argument("--intermediate", type=at_least(1), metavar="N", help="neurons an expert")
    model.add_argument("--experts", type=at_least(1), metavar="N", help="experts in the model")
    model.add_argument("--top-k", type=at_least(1), metavar="N", help="experts a token")
    serving = verb.add_argument_group("deployment")
    serving.add_argument("--tp", type=at_least(1), default=1, metavar="N", help="tensor parallel")
    serving.add_argument("--ep", action="store_true", help="experts are parallel")
    serving.add_argument("--dp", type=at_least(1), default=1, metavar="N", help="data parallel")
    serving.add_argument(
        "--vllm",
        default=vllm_eras.NEWEST_VERIFIED,
        metavar="VERSION",
        help="vLLM release (default: %(default)s, the newest whose code was run)",
    )
    serving.add_argument(
        "--aiter",
        default=aiter_eras.NEWEST_VERIFIED,
        metavar="VERSION|unknown",
        help="AITER release, or unknown to demand safety on all (default: %(default)s)",
    )
    serving.add_argument("--quant", choices=[q.value for q in Quant], default=Quant.W4A16.value)
    serving.add_argument(
        "--layout",
        choices=[layout.value for layout in Layout],
        help="order of w13's rows (default: interleave for w4a16, separated for w4a4)",
    )
    pads = verb.add_argument_group("pads")
    pads.add_argument(
        "--policy", choices=[policy.value for policy in Policy], default=Policy.ALIGNED.value
    )
    pads.add_argument(
        "--max-neuron-loss",
        type=fraction,
        default=0.0,
        metavar="FRACTION",
        help="share of a rank's live neurons that may be lost (default: 0)",
    )
    add_output(verb)


def explain(args: argparse.Namespace) -> int:
    """Print the report; always exit 0."""
    _print(args, _report(args))
    return 0


def check(args: argparse.Namespace) -> int:
    """Print the report; exit 0 if it is safe, 1 if not."""
    report = _report(args)
    _print(args, report)
    return 0 if report.safe else 1


def _print(args: argparse.Namespace, report: Report) -> None:
    if args.output == "json":
        sys.stdout.write(json.dumps({"model": args.model, **to_json(report)}, indent=2) + "\n")
    else:
        sys.stdout.write(to_text(report) + "\n")


def _report(args: argparse.Namespace) -> Report:
    dims, quant = _dims(args), Quant(args.quant)
    vllm = vllm_eras.vllm_era(args.vllm)
    parallel = Parallelism(tp=args.tp, ep=args.ep, dp=args.dp)
    call = Call(
        part=shard(dims, parallel, align=vllm.alignment(quant, dims.activation)),
        vllm=vllm,
        aiter=None if args.aiter == "unknown" else aiter_eras.aiter_era(args.aiter),
        quant=quant,
        layout=_layout(args.layout, quant),
        activation=dims.activation,
        bias=False if quant is Quant.W4A4 else dims.bias,  # vLLM passes biases for w4a16 alone
    )
    return assess(call, Policy(args.policy), max_loss=args.max_neuron_loss)


def _layout(flag: str | None, quant: Quant) -> Layout:
    if flag is not None and quant is Quant.W4A8:
        raise UsageError(f"--layout {flag}: w4a8 has no such choice; leave --layout out")
    if flag == Layout.INTERLEAVE and quant is Quant.W4A4:
        raise UsageError(f"--layout {flag}: w4a4 weights are stored separated; leave --layout out")
    if flag is not None:
        return Layout(flag)
    return Layout.SEPARATED if quant is Quant.W4A4 else Layout.INTERLEAVE


def _dims(args: argparse.Namespace) -> ModelDims:
    sizes = {name: getattr(args, name) for name in _SIZE_FLAGS}
    given = [_flag(name) for name, value in sizes.items() if value is not None]
    if args.model and given:
        raise UsageError(f"--model {args.model} and {', '.join(given)}: give one or the other")
    if given:
        missing = [_flag(name) for name, value in sizes.items() if value is None]
        if missing:
            raise UsageError(f"{', '.join(missing)}: missing; sizes need all four flags")
        return ModelDims(name="flags", **sizes)
    args.model = args.model or "gpt-oss-120b"
    if args.model in BUILT_IN:
        return BUILT_IN[args.model]
    return dims_from_config(_read_config(args.model), source=args.model)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read_config(model: str) -> Mapping[str, object]:
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"--model {model}: {error.strerror or error}; give {', '.join(BUILT_IN)}, "
            f"or the path of a config.json"
        ) from error
    except ValueError as error:
        raise UsageError(f"--model {model}: {path.name} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UsageError(f"--model {model}: {path.name} does not hold a JSON object")
    return config
