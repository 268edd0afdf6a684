"""The workers' own proof that safe pads are in force; its absence counts as unsafe.

vLLM serves on without a plugin that failed to load or was left out, so only what a living worker
wrote, after a real call, proves anything.
"""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from moe_serve.errors import UsageError
from moe_serve.preflight.checks import PreflightCheck, fail, ok
from moe_serve.telemetry.proof import ShapeProof
from moe_serve.telemetry.record import Record

_HEALTH_SECONDS = 2.0


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
    if record.proof_fault:
        yield fail(f"{name} proof", f"it cannot be taken: {record.proof_fault}; start it anew")
    elif proof is not None and proof.fault:
        yield fail(f"{name} plugin", _line(proof.fault))
    elif proof is None or not proof.intercepted_calls or not proof.shapes:
        yield fail(
            f"{name} interception",
            "no fused-MoE call has passed through the plugin; see that the model's experts "
            "run on AITER (VLLM_ROCM_USE_AITER=1) and that the server has warmed up",
        )
    else:
        yield ok(f"{name} interception", f"{proof.intercepted_calls} calls or more")
    for shape in proof.shapes if proof and not proof.fault else ():
        yield _of_shape(name, shape)


def _of_shape(name: str, shape: ShapeProof) -> PreflightCheck:
    text = f"pads {shape.sent} of {shape.raw} sent"
    if shape.lost_neurons:
        text += f", {shape.lost_neurons} of {shape.live_neurons} neurons lost"
    if shape.safe:
        return ok(f"{name} pads", text)
    reasons = "; ".join(_line(violation.message) for violation in shape.violations)
    return fail(f"{name} pads", f"{text}: {reasons}")


def _line(text: str) -> str:
    """Foreign text as one line."""
    return " ".join(text.split())


def _agreement(living: Sequence[Record]) -> PreflightCheck:
    policies = sorted({record.proof.policy if record.proof else "none" for record in living})
    if len(policies) == 1:
        return ok("policies", f"all ranks: {policies[0]}")
    return fail(
        "policies",
        f"the ranks differ: {_line(', '.join(policies))}; give all the same MOE_SERVE_PADDING",
    )


def check_health(url: str) -> PreflightCheck:
    """Ask `url`; only 200 is well, and no redirection is followed.

    Raises:
        UsageError: it is not an HTTP address.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--url {url!r}: give an address such as http://127.0.0.1:8000/health")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(host, port, timeout=_HEALTH_SECONDS)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException, UnicodeError) as error:
        return fail("server", f"{url} does not answer ({error}); see the server's log")
    finally:
        connection.close()
    if status != 200:
        return fail("server", f"{url} answers {status}, not 200; see the server's log")
    return ok("server", f"{url} answers 200")
