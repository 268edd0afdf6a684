"""A contract report as a table that a person understands, and as JSON."""

from collections.abc import Iterator
from enum import StrEnum

from moe_serve.padding.builds import UNKNOWN
from moe_serve.padding.contract import PathReport, Report
from moe_serve.padding.deployment import PaddingJudgement
from moe_serve.padding.shapes import Pads, Quant


class Answer(StrEnum):
    """What a gate makes of a report."""

    SAFE = "safe"
    WITHIN_BUDGET = "within-budget"
    UNVERIFIED = "unverified"
    UNSAFE = "unsafe"

    @property
    def passes(self) -> bool:
        """Whether a gate lets it through."""
        return self in (Answer.SAFE, Answer.WITHIN_BUDGET)


def answer(report: Report, *, allow_unverified: bool = False) -> Answer:
    """The gate's answer; `allow_unverified` lifts the doubt about software, and no loss."""
    if not report.safe:
        return Answer.UNSAFE
    if not report.call.verified and not allow_unverified:
        return Answer.UNVERIFIED
    return Answer.SAFE if report.lossless else Answer.WITHIN_BUDGET


def to_json(judgement: PaddingJudgement, *, allow_unverified: bool = False) -> dict[str, object]:
    """`padding explain --output json`; pads and losses count elements of one rank."""
    report = judgement.worst
    call = report.call
    return {
        "model": judgement.deployment.model.name,
        "answer": answer(report, allow_unverified=allow_unverified).value,
        "policy": report.policy.value,
        "vllm": _known(call.vllm.text),
        "aiter": _known(call.aiter.text),
        "verified": call.verified,
        "unverified": list(call.unverified),
        "notes": list(judgement.deployment.model.notes),
        "quant": call.quant.value,
        "activation": call.activation.value,
        "layout": None if call.quant is Quant.W4A8 else call.layout.value,
        "ksplit": call.ksplit,
        "calls_judged": judgement.calls,
        "judged_as_vllm": [era.text for era in call.vllm.eras],
        "judged_as_aiter": [era.text for era in call.aiter.eras],
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


def _known(text: str) -> str | None:
    return None if text == UNKNOWN else text


def _path_json(report: Report, path: PathReport) -> dict[str, object]:
    return {
        "path": path.path.value,
        "phase": path.phase.value,
        "variants": path.variants,
        "raw": report.call.part.raw.to_json(),
        "sent": report.sent.to_json(),
        "effective": path.skips.effective.to_json(),
        "skipped_w2_rows": path.skips.stage2_n,
        "lost": path.skips.lost.to_json(),
        "uninitialised_neurons": path.skips.uninitialised,
        "bytes_ratio": path.bytes_ratio,
        "assumption": path.assumption,
        "safe": path.safe,
        "violations": [violation.to_json() for violation in path.violations],
    }


def to_text(judgement: PaddingJudgement, *, allow_unverified: bool = False) -> str:
    """The same for a person: what is sent, what each kernel makes of it, safe or not, and why."""
    report = judgement.worst
    call, part = report.call, report.call.part
    ksplit = f", AITER_KSPLIT={call.ksplit}" if call.ksplit else ""
    lines = [
        f"model       {judgement.deployment.model.name}",
        *(f"            {note}" for note in judgement.deployment.model.notes),
        f"one rank    {part.hidden} hidden x {part.intermediate} neurons, {part.experts} experts, "
        f"loaded as {part.padded_hidden} x {part.padded_intermediate}{_worst_of(judgement)}",
        f"software    vLLM {call.vllm.text}, AITER {call.aiter.text}, {call.quant}, "
        f"{call.activation}{ksplit}",
        *(f"unverified  {reason}" for reason in call.unverified),
        f"pads        raw {part.raw}, sent {report.sent}  (hidden/neurons, policy {report.policy})",
        "",
        *_table(report),
        *(f"{path.path} {path.phase}: {path.assumption}" for path in _assumed(report)),
        "",
        *_verdict(report, allow_unverified=allow_unverified),
        *_held_back(report),
    ]
    return "\n".join(lines)


def _assumed(report: Report) -> list[PathReport]:
    return [path for path in report.paths if path.assumption is not None]


def _worst_of(judgement: PaddingJudgement) -> str:
    if judgement.calls == 1:
        return ""
    era = judgement.worst.call.vllm.eras[-1].text
    return f"  (the worst of {judgement.calls} that are possible: as vLLM {era})"


_HEAD = (
    "kernel", "phase", "skipped", "left over", "w2 rows skipped", "neurons lost", "bytes vs ideal",
    "", "",
)  # fmt: skip


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
        str(found.stage2_n),
        f"{neurons} of {part.intermediate}" if neurons else "0",
        f"{path.bytes_ratio:.3f}",
        "ok" if path.safe else "UNSAFE",
        f"worst of {path.variants} variants" if path.variants > 1 else "",
    )


def _verdict(report: Report, *, allow_unverified: bool) -> Iterator[str]:
    match answer(report, allow_unverified=allow_unverified):
        case Answer.SAFE:
            yield "SAFE: no live weight is lost on any path that a call can take."
            return
        case Answer.UNVERIFIED:
            yield (
                "UNVERIFIED: no loss beyond the budget was found, but this software's own source "
                "was not read; --allow-unverified accepts that."
            )
            return
        case Answer.WITHIN_BUDGET:
            share = f"{report.loss_fraction:.1%} lost of {report.max_loss:.1%} allowed"
            yield f"WITHIN BUDGET ({share}):"
        case _:
            budget = f" ({report.loss_fraction:.1%} lost, budget {report.max_loss:.1%})"
            yield f"UNSAFE{budget if report.max_loss else ''}:"
    yield from (f"  {violation.rule}: {violation.message}" for violation in report.violations)


def _held_back(report: Report) -> list[str]:
    reasons = report.held_back
    if not reasons:
        return []
    return [
        f"aligned sends {report.sent} of {report.call.part.raw}, since all of it would break:",
        *(f"  {violation.rule}: {violation.message}" for violation in reasons),
    ]
