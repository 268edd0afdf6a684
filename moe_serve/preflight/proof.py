"""The workers' own proof that safe pads are in force; its absence counts as unsafe.

vLLM serves on without a plugin that failed to load or was left out, so only what a living worker
wrote, after a real call, proves anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moe_serve.preflight.checks import PreflightCheck, fail, ok
from moe_serve.telemetry.record import Record


def check_proof(records: Sequence[Record], *, ranks: int, place: str) -> tuple[PreflightCheck, ...]:
    """Judge the records found in `place` for a deployment of `ranks` workers."""
    living = [record for record in records if record.alive]
    checks = [_presence(records, living, ranks, place)]
    for record in living:
        checks += _of_rank(record)
    if len(living) > 1:
        checks.append(_agreement(living))
    return tuple(checks)


def _presence(
    records: Sequence[Record], living: Sequence[Record], ranks: int, place: str
) -> PreflightCheck:
    if len(living) == ranks:
        return ok("workers", f"{ranks} of {ranks} left their proof")
    if not records:
        detail = (
            f"no record in {place}: the plugin is not in force; see that moe-serve is installed "
            f"beside vLLM, that VLLM_PLUGINS does not leave moe_serve out, that MOE_SERVE_PADDING "
            f"is not off, and that MOE_SERVE_RECORD_DIR is this folder"
        )
    elif not living:
        detail = (
            f"{len(records)} records in {place}, all of workers that have ended; start the server, "
            f"or name the folder that it writes to"
        )
    else:
        detail = f"{len(living)} of {ranks} workers left their proof; see the other ranks' logs"
    return fail("workers", detail)


def _of_rank(record: Record) -> Iterator[PreflightCheck]:
    name, proof = record.path.stem, record.proof
    if proof.get("fault"):
        yield fail(f"{name} plugin", _line(proof["fault"]))
        return
    calls, shapes = proof.get("intercepted_calls"), proof.get("shapes")
    # A proof comes from a file: what is not of the type that a worker writes proves nothing.
    if type(calls) is not int or calls < 1 or not shapes:
        yield fail(
            f"{name} interception",
            "no fused-MoE call has passed through the plugin; see that the model's experts "
            "run on AITER (VLLM_ROCM_USE_AITER=1) and that the server has warmed up",
        )
    else:
        yield ok(f"{name} interception", f"{calls} calls or more")
    try:
        yield from [_of_shape(name, shape) for shape in shapes or ()]
    except (KeyError, TypeError, AttributeError) as error:
        detail = f"the proof is damaged ({_line(repr(error))}); start the worker anew"
        yield fail(f"{name} pads", detail)


def _of_shape(name: str, shape: Mapping[str, Any]) -> PreflightCheck:
    lost = f", {shape['lost_neurons']} of {shape['live_neurons']} neurons lost"
    text = f"pads {_pads(shape['sent'])} of {_pads(shape['raw'])} sent"
    text += lost if shape["lost_neurons"] else ""
    if shape["safe"] is True:
        return ok(f"{name} pads", text)
    reasons = "; ".join(_line(violation["message"]) for violation in shape["violations"])
    return fail(f"{name} pads", f"{text}: {reasons}")


def _pads(value: Mapping[str, int]) -> str:
    return f"{value['hidden']}/{value['intermediate']}"


def _line(value: object) -> str:
    """Foreign text as one line that can be printed."""
    return " ".join(str(value).encode(errors="replace").decode().split())


def _agreement(living: Sequence[Record]) -> PreflightCheck:
    policies = sorted({_line(record.proof.get("policy")) for record in living})
    if len(policies) == 1:
        return ok("policies", f"all ranks: {policies[0]}")
    return fail(
        "policies", f"the ranks differ: {', '.join(policies)}; give all the same MOE_SERVE_PADDING"
    )
