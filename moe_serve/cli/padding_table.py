"""`moe-serve padding table`: every policy of a model, by release and parallelism, in one table."""

import argparse
import json
import sys
from collections.abc import Sequence

from moe_serve.cli.padding_model import (
    add_model_flags,
    quant_of,
    read_ksplit_flag,
    read_model,
    read_tables,
)
from moe_serve.cli.parsing import printable
from moe_serve.errors import UsageError
from moe_serve.padding import aiter_eras, vllm_eras
from moe_serve.padding.contract import PaddingPolicy
from moe_serve.padding.deployment import Deployment, require_layout
from moe_serve.padding.fleet import COLUMNS, FleetRow, fleet_rows
from moe_serve.padding.shapes import LARGEST_SIZE, Layout, Parallelism

_MOST_ROWS = 20_000


def add_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `table` below `padding`."""
    text = "every policy by release and parallelism, to choose from before an upgrade"
    verb = verbs.add_parser("table", help=text, description=text)
    add_model_flags(verb)
    fleet = verb.add_argument_group("deployments (lists with commas)")
    fleet.add_argument("--tp", default="1,2,4,8", metavar="N,...", help="tensor parallel sizes")
    fleet.add_argument("--ep", default="", metavar="N,...", help="expert parallel sizes")
    fleet.add_argument(
        "--vllm",
        default=vllm_eras.NEWEST_VERIFIED,
        metavar="VERSION,...",
        help="vLLM's versions (default: %(default)s)",
    )
    fleet.add_argument(
        "--aiter",
        default=aiter_eras.NEWEST_VERIFIED,
        metavar="VERSION,...",
        help="AITER's versions (default: %(default)s)",
    )
    policies = ",".join(policy.value for policy in PaddingPolicy)
    fleet.add_argument(
        "--policy", default=policies, metavar="POLICY,...", help="policies (default: all)"
    )
    verb.add_argument(
        "--output",
        choices=("text", "json", "markdown"),
        default="text",
        help="form of the table",
    )
    verb.set_defaults(run=table)


def table(args: argparse.Namespace) -> int:
    """Print the table; always exit 0."""
    policies = [_policy(word) for word in _words("--policy", args.policy)]
    deployments = _deployments(args)
    if len(deployments) * len(policies) > _MOST_ROWS:
        raise UsageError(
            f"the table would have {len(deployments) * len(policies)} rows; ask for at most "
            f"{_MOST_ROWS}"
        )
    rows = list(fleet_rows(deployments, policies))
    write = {"json": _json, "markdown": _markdown, "text": _text}[args.output]
    sys.stdout.write(printable(write(deployments[0].model.name, rows)))
    return 0


def _deployments(args: argparse.Namespace) -> list[Deployment]:
    spreads = [Parallelism(tp=tp) for tp in _numbers("--tp", args.tp)]
    spreads += [Parallelism(tp=ep, ep=True) for ep in _numbers("--ep", args.ep)]
    if not spreads:
        raise UsageError("--tp and --ep: no size is given; name at least one")
    vllms = [vllm_eras.vllm_build(word) for word in _words("--vllm", args.vllm)]
    aiters = [aiter_eras.aiter_build(word) for word in _words("--aiter", args.aiter)]
    model = read_model(args)
    quant, layout = quant_of(args, model), Layout(args.layout) if args.layout else None
    require_layout(layout, quant)
    ksplit, site = read_ksplit_flag(args.ksplit), read_tables(args.tuned)
    return [
        Deployment(
            model=model,
            parallel=parallel,
            vllm=vllm,
            aiter=aiter,
            quant=quant,
            layout=layout,
            ksplit=ksplit,
            site=site,
        )
        for vllm in vllms
        for aiter in aiters
        for parallel in spreads
    ]


def _words(flag: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"{flag}: {text[:40]!r} has an empty entry; give a list with commas")
    return words


def _numbers(flag: str, text: str) -> list[int]:
    words = _words(flag, text) if text else []
    for word in words:
        if not word.isascii() or not word.isdigit() or not 1 <= int(word[:9]) <= LARGEST_SIZE:
            raise UsageError(f"{flag}: {word[:40]!r} is not allowed; give whole numbers, 1 or more")
    return [int(word) for word in words]


def _policy(word: str) -> PaddingPolicy:
    try:
        return PaddingPolicy(word)
    except ValueError:
        allowed = ", ".join(policy.value for policy in PaddingPolicy)
        raise UsageError(
            f"--policy: {word[:40]!r} is not allowed; give some of {allowed}"
        ) from None


def _json(model: str, rows: Sequence[FleetRow]) -> str:
    found = {"model": model, "rows": [row.to_json() for row in rows]}
    return json.dumps(found, indent=2) + "\n"


def _markdown(_: str, rows: Sequence[FleetRow]) -> str:
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _text(model: str, rows: Sequence[FleetRow]) -> str:
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(COLUMNS))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    )
    return f"model  {model}\n" + "\n".join(padded) + "\n"
