"""A contract report as a table that a person understands, and as JSON."""

from moe_serve.padding.contract import PathReport, Report
from moe_serve.padding.shapes import Pads, Quant


def to_json(report: Report) -> dict[str, object]:
    """`padding explain --output json`; pads and losses count elements of one rank."""
    call = report.call
    return {
        "policy": report.policy.value,
        "vllm": call.vllm.text,
        "aiter": call.aiter.text if call.aiter else None,
        "verified": call.verified,
        "quant": call.quant.value,
        "layout": None if call.quant is Quant.W4A8 else call.layout.value,
        "rank": {
            "hidden": call.part.hidden,
            "intermediate": call.part.intermediate,
            "padded_hidden": call.part.padded_hidden,
            "padded_intermediate": call.part.padded_intermediate,
            "experts": call.part.experts,
            "moe_tp": call.part.moe_tp,
        },
        "raw": call.part.raw.to_json(),
        "sent": report.sent.to_json(),
        "lost": report.lost.to_json(),
        "loss_fraction": report.loss_fraction,
        "max_loss_fraction": report.max_loss,
        "safe": report.safe,
        "violations": [violation.to_json() for violation in report.violations],
        "held_back": [violation.to_json() for violation in report.held_back],
        "paths": [_path_json(report, path) for path in report.paths],
    }


def _path_json(report: Report, path: PathReport) -> dict[str, object]:
    return {
        "path": path.path.value,
        "phase": path.phase.value,
        "raw": report.call.part.raw.to_json(),
        "sent": report.sent.to_json(),
        "effective": path.skips.effective.to_json(),
        "lost": path.skips.lost.to_json(),
        "uninitialised_neurons": path.skips.uninitialised,
        "bytes_ratio": path.bytes_ratio,
        "safe": path.safe,
        "violations": [violation.to_json() for violation in path.violations],
    }


def to_text(report: Report) -> str:
    """The same for a person: what is sent, what each kernel makes of it, safe or not, and why."""
    call, part = report.call, report.call.part
    raw = part.raw
    lines = [
        f"one rank    {part.hidden} hidden x {part.intermediate} neurons, {part.experts} experts, "
        f"loaded as {part.padded_hidden} x {part.padded_intermediate}",
        f"software    vLLM {call.vllm.text}, AITER {call.aiter.text if call.aiter else 'unknown'}, "
        f"{call.quant}"
        + ("" if call.verified else "  (newer than any that was read: judged as the newest)"),
        f"pads        raw {raw}, sent {report.sent}  (hidden/neurons, policy {report.policy})",
        "",
        *_table(report),
        "",
        *_verdict(report),
        *_held_back(report),
    ]
    return "\n".join(lines)


_HEAD = ("kernel", "phase", "skipped", "left over", "neurons lost", "bytes vs ideal", "")


def _table(report: Report) -> list[str]:
    rows = [_HEAD, *(_row(report, path) for path in report.paths)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(report: Report, path: PathReport) -> tuple[str, ...]:
    part, found = report.call.part, path.skips
    left = Pads(
        hidden=max(0, part.raw.hidden - found.effective.hidden),
        intermediate=max(0, part.raw.intermediate - found.effective.intermediate),
    )
    neurons = max(found.lost.stage1_neurons, found.lost.stage2_k)
    return (
        path.path.value,
        path.phase.value,
        str(found.effective),
        str(left),
        f"{neurons} of {part.intermediate}" if neurons else "0",
        f"{path.bytes_ratio:.3f}",
        "ok" if path.safe else "UNSAFE",
    )


def _verdict(report: Report) -> list[str]:
    if report.lossless:
        return ["SAFE: no live weight is lost on any path that a call can take."]
    head = "UNSAFE"
    if report.safe:
        head = f"WITHIN BUDGET ({report.loss_fraction:.1%} lost of {report.max_loss:.1%} allowed)"
    elif report.max_loss:
        head = f"UNSAFE ({report.loss_fraction:.1%} lost, budget {report.max_loss:.1%})"
    lines = [f"{head}:"]
    lines += [f"  {violation.rule}: {violation.message}" for violation in report.violations]
    return lines


def _held_back(report: Report) -> list[str]:
    reasons = report.held_back
    if not reasons:
        return []
    return [
        f"aligned sends {report.sent} of {report.call.part.raw}, since all of it would break:",
        *(f"  {violation.rule}: {violation.message}" for violation in reasons),
    ]
