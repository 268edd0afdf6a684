"""What one worker process decides, proves and counts.

State belongs to a process: a forked worker inherits its parent's memory, so everything here is
looked up through the process id.
"""

import logging
import os
from dataclasses import dataclass, field
from typing import Any

from moe_serve import __version__
from moe_serve.errors import MoeServeError, PaddingUnsafe
from moe_serve.padding.contract import Policy, Report, assess
from moe_serve.padding.shapes import Pads
from moe_serve.telemetry.record import Kind, Mode, Rank, RecordWriter, SlotKey
from moe_serve.vllm_plugin import shape
from moe_serve.vllm_plugin.settings import MAX_LOSS, PADDING, Settings

# Below vLLM's own logger, so that its handlers print it.
logger = logging.getLogger("vllm.moe_serve")


@dataclass(slots=True)
class Session:
    """One worker process: settings in, pads out, proof and totals into the record."""

    settings: Settings
    policy: Policy
    pid: int = field(default_factory=os.getpid)
    fault: MoeServeError | None = None
    intercepted: int = 0
    step: Mode | None = None
    _reports: dict[shape.Seen, Report] = field(default_factory=dict)
    _untouched: set[str] = field(default_factory=set)
    _layers: dict[int, int] = field(default_factory=dict)
    _record: RecordWriter | None = None
    _telemetry_failed: bool = False

    def require_sound(self) -> None:
        """Refuse to go on if the plugin cannot do its work in this process.

        Raises:
            MoeServeError: what is wrong, and what to set.
        """
        if self.fault is not None:
            raise self.fault

    def pads(self, seen: shape.Seen) -> Pads:
        """The pads to send for a call of this shape; judged, logged and proven once a shape.

        Raises:
            PaddingUnsafe: they lose more than the budget allows.
        """
        report = self._reports.get(seen)
        if report is None:
            report = self._decide(seen)
            if report.safe:
                self._reports[seen] = report
            self._log(seen, report)
            self.prove(report if not report.safe else None, seen)
        if not report.safe:
            raise PaddingUnsafe(refusal(report, self.policy, self.settings.max_loss))
        self.intercepted += 1
        if self.intercepted & (self.intercepted - 1) == 0:
            self.prove()  # at 1, 2, 4, 8, ...: proof that calls go on, at no cost to speak of
        return report.sent

    def leave(self, what: str) -> None:
        """Say once that calls of this kind are left as they are."""
        if what not in self._untouched:
            self._untouched.add(what)
            logger.info("moe-serve leaves as it is: %s", what)

    def _decide(self, seen: shape.Seen) -> Report:
        sent = seen.upstream if self.policy is Policy.UPSTREAM else None
        call = shape.to_call(seen)
        return assess(call, self.policy, max_loss=self.settings.max_loss, sent=sent)

    def _log(self, seen: shape.Seen, report: Report) -> None:
        call, decode = report.call, report.paths[0]
        logger.info(
            "moe-serve padding: policy %s, pads raw %s, vLLM's %s, sent %s (hidden/neurons), "
            "%d of %d live neurons lost, %.3f of the ideal weight bytes in decode, "
            "vLLM %s, AITER %s%s",
            report.policy,
            call.part.raw,
            seen.upstream,
            report.sent,
            report.lost.stage1_neurons,
            call.part.intermediate,
            decode.bytes_ratio,
            call.vllm.text,
            call.aiter.text if call.aiter else "unknown",
            "" if call.verified else " (newer than any that was read: judged as the newest)",
        )

    def open_record(self, rank: Rank) -> None:
        """Open this rank's record; a failure is said, and then missing from the proof."""
        if self._record is not None:
            return
        try:
            self._record = RecordWriter(self.settings.record_dir, rank)
            self.prove()
        except MoeServeError as error:
            logger.error("moe-serve: no proof and no telemetry: %s", error)

    def prove(self, refused: Report | None = None, seen: shape.Seen | None = None) -> None:
        """Write the proof as it stands; `refused` is a report that stops the start."""
        if self._record is None:
            return
        reports = dict(self._reports)
        if refused is not None and seen is not None:
            reports[seen] = refused
        self._record.prove(
            {
                "moe_serve": __version__,
                "policy": self.policy.value,
                "max_neuron_loss": self.settings.max_loss,
                "vllm": shape.installed_vllm().text,
                "aiter": _aiter_text(),
                "intercepted_calls": self.intercepted,
                "untouched": sorted(self._untouched),
                "fault": str(self.fault) if self.fault else None,
                "shapes": [_shape_proof(at, report) for at, report in reports.items()],
            }
        )

    def count_kernel(self, w1: Any, tokens: int, nanoseconds: int) -> None:
        """Count one kernel call within a real step. Layers are numbered as they first appear."""
        if self.step is None:
            return
        layer = self._layers.setdefault(w1.data_ptr(), len(self._layers))
        self._count(
            SlotKey(kind=Kind.KERNEL, layer=layer, bucket=tokens, mode=self.step), nanoseconds
        )

    def count_step(self, mode: Mode, tokens: int, nanoseconds: int) -> None:
        """Count one engine step of so many scheduled tokens."""
        self._count(SlotKey(kind=Kind.STEP, layer=None, bucket=tokens, mode=mode), nanoseconds)

    def _count(self, key: SlotKey, nanoseconds: int) -> None:
        if self._record is None or self._telemetry_failed:
            return
        try:
            self._record.add(key, nanoseconds)
        except Exception:  # serving must survive whatever telemetry does
            self._telemetry_failed = True
            logger.exception("moe-serve: telemetry failed and is off; serving goes on")
            self._record.fail()

    def close(self) -> None:
        """Let go of the record."""
        if self._record is not None and self._record.pid == os.getpid():
            self._record.close()
        self._record = None


def refusal(report: Report, policy: Policy, budget: float) -> str:
    """Why the start stops: how many of how many, on which path, what to set instead."""
    reasons = "; ".join(dict.fromkeys(violation.message for violation in report.violations))
    loss = report.loss_fraction
    ways = ["MOE_SERVE_PADDING=aligned"] if policy is not Policy.ALIGNED else []
    if loss > budget and _is_loss_alone(report):
        ways.append(f"{MAX_LOSS}={_above(loss):g} to accept the loss")
    ways.append(f"{PADDING}=off for stock vLLM")
    lost = (
        f"lose {loss:.1%} of the live weights ({report.lost.stage1_neurons} of "
        f"{report.call.part.intermediate} neurons; the budget is {budget:.1%})"
        if loss
        else "would give wrong answers"
    )
    return f"pads {report.sent} (policy {policy}) {lost}: {reasons}. Set {', or '.join(ways)}"


def _is_loss_alone(report: Report) -> bool:
    generous = assess(report.call, report.policy, max_loss=1.0, sent=report.sent)
    return generous.safe


def _above(loss: float) -> float:
    return -(-loss * 100 // 1) / 100


def _aiter_text() -> str | None:
    aiter = shape.installed_aiter()
    return aiter.text if aiter else None


def _shape_proof(seen: shape.Seen, report: Report) -> dict[str, object]:
    part = report.call.part
    return {
        "padded": {"hidden": part.padded_hidden, "intermediate": part.padded_intermediate},
        "raw": part.raw.to_json(),
        "upstream": seen.upstream.to_json(),
        "sent": report.sent.to_json(),
        "live_neurons": part.intermediate,
        "lost_neurons": report.lost.stage1_neurons,
        "loss_fraction": report.loss_fraction,
        "bytes_ratio": report.paths[0].bytes_ratio,
        "safe": report.safe,
        "verified": report.call.verified,
        "violations": [violation.to_json() for violation in report.violations],
    }
