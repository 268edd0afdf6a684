"""What one worker process decides, proves and counts.

State belongs to a process: a forked worker inherits its parent's memory, so everything here is
looked up through the process id.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Any

from moe_serve import __version__
from moe_serve.errors import MoeServeError, PaddingUnsafe
from moe_serve.padding.contract import PaddingPolicy, Report, assess
from moe_serve.padding.shapes import Pads
from moe_serve.telemetry.proof import BrokenRule, GraphsProof, HiddenIntermediate, Proof, ShapeProof
from moe_serve.telemetry.record import RecordWriter
from moe_serve.telemetry.slots import BatchPhase, GraphMode, SlotKey, SlotKind, eager_bucket
from moe_serve.vllm_plugin import shape
from moe_serve.vllm_plugin.markers.sampler import Sampler
from moe_serve.vllm_plugin.settings import MAX_LOSS, PADDING, PluginSettings
from moe_serve.vllm_plugin.timing import Timing
from moe_serve.vllm_plugin.worker_config import (
    captured_graphs,
    decode_width,
    rank_of,
    worker_config_digest,
)

# Below vLLM's own logger, so that its handlers print it.
logger = logging.getLogger("vllm.moe_serve")

# Characters: a compiler's error may fill pages, and the proof has its own room.
_LONGEST_REASON = 500


@dataclass(slots=True)
class Session:
    """One worker process: settings in, pads out, proof and totals into the record."""

    settings: PluginSettings
    policy: PaddingPolicy
    pid: int = field(default_factory=os.getpid)
    fault: MoeServeError | None = None
    intercepted: int = 0
    unserved: bool = False
    decode_width: int = 1
    _reports: dict[shape.Seen, Report] = field(default_factory=dict)
    _untouched: set[str] = field(default_factory=set)
    _versions: dict[str, str | None] = field(default_factory=dict)
    _graphs: GraphsProof | None = None
    _config_digest: str | None = None
    _record: RecordWriter | None = None
    _telemetry_failed: bool = False
    _timing: Timing = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is timed before a model is loaded."""
        self._timing = Timing(self.settings, self._timing_changed)

    @property
    def markers(self) -> Sampler | None:
        """What times kernels; None while nothing does."""
        return self._timing.sampler

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
        sent = seen.upstream if self.policy is PaddingPolicy.UPSTREAM else None
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
            call.aiter.text,
            "".join(f"; UNVERIFIED: {reason}" for reason in call.unverified),
        )

    def open_record(self, worker: Any) -> None:
        """Open this rank's record; a failure is said, and then missing from the proof."""
        if self._record is not None:
            return
        self._read_config(worker)
        hertz = self._timing.open(worker)
        try:
            self._record = RecordWriter(
                self.settings.record_dir, rank_of(worker), clock_hertz=hertz
            )
            self.prove()
        except MoeServeError as error:
            logger.error("moe-serve: no proof and no telemetry: %s", error)

    def _read_config(self, worker: Any) -> None:
        """Read what decides the worker's speed; what vLLM does not say is missing in the proof."""
        try:
            self._versions = shape.versions()
        except MoeServeError as error:  # a source build's version may say nothing
            logger.warning("moe-serve: the proof lacks the versions: %s", error)
        try:
            config = worker.vllm_config
            self.decode_width = decode_width(config)
            self._graphs = captured_graphs(config)
            self._config_digest = worker_config_digest(config, self._versions)
        except Exception as error:  # noqa: BLE001  # vLLM's configuration changes with releases
            logger.warning("moe-serve: the proof lacks the configuration: %s", error)

    def warmed_up(self, worker: Any) -> None:
        """VLLM settles its graphs only now: they depend on the room that the cache leaves."""
        if self._record is not None:
            self._read_config(worker)
            self.prove()

    def start_markers(self, worker: Any) -> None:
        """Time kernels from now on, if there is a record for the times."""
        if self._record is not None:
            self._timing.start(worker, self._record)
            self.prove()

    def _timing_changed(self, reason: str | None) -> None:
        if reason is not None:
            logger.warning("moe-serve: kernels are not timed, serving goes on: %s", reason)
        self.prove()

    def prove(self, refused: Report | None = None, seen: shape.Seen | None = None) -> None:
        """Write the proof as it stands; `refused` is a report that stops the start.

        A proof that cannot be written is said once: the record then lacks it, and so is unsafe.
        """
        if self._record is None or self._telemetry_failed:
            return
        try:
            self._prove(self._record, refused, seen)
        except Exception:  # serving must survive whatever telemetry does
            self._telemetry_failed = True
            logger.exception("moe-serve: the proof cannot be written; serving goes on")

    def _prove(self, record: RecordWriter, refused: Report | None, seen: shape.Seen | None) -> None:
        reports = dict(self._reports)
        if refused is not None and seen is not None:
            reports[seen] = refused
        record.prove(
            Proof(
                moe_serve=__version__,
                policy=self.policy.value,
                max_neuron_loss=self.settings.max_loss,
                **self._versions,
                worker_config_digest=self._config_digest,
                graphs=self._graphs,
                device=self._timing.device,
                layers=self._timing.layers,
                markers=self._timing.markers,
                intercepted_calls=self.intercepted,
                untouched=tuple(sorted(self._untouched)),
                fault=str(self.fault)[:_LONGEST_REASON] if self.fault else None,
                shapes=tuple(_shape_proof(at, report) for at, report in reports.items()),
            )
        )

    @contextlib.contextmanager
    def exclude_from_metrics(self) -> Iterator[None]:
        """What runs within is no served work: a warm-up, or a step that only keeps pace."""
        before, self.unserved = self.unserved, True
        if self.markers is not None:
            self.markers.serving(None)
        try:
            yield
        finally:
            self.unserved = before

    def begin_step(self, phase: BatchPhase) -> None:
        """A served step of this phase begins."""
        if self.markers is not None:
            self.markers.serving(phase)

    def end_step(self, phase: BatchPhase, tokens: int, nanoseconds: int | None) -> None:
        """Count one served step of `tokens` real tokens; `nanoseconds` None: not known here."""
        if self._record is None or self._telemetry_failed:
            return
        try:
            if self.markers is not None:
                self.markers.served()
            self._record.stepped(phase, tokens)
            if nanoseconds is not None:
                key = SlotKey(
                    kind=SlotKind.STEP,
                    mode=GraphMode.EAGER,
                    phase=phase,
                    bucket=eager_bucket(tokens),
                )
                self._record.add(key, nanoseconds, tokens=tokens)
        except Exception:  # serving must survive whatever telemetry does
            self._telemetry_failed = True
            logger.exception("moe-serve: telemetry failed and is off; serving goes on")
            self._record.fail()

    def close(self) -> None:
        """Let go of the record."""
        if self._record is not None and self._record.pid == os.getpid():
            self._timing.close()
            self._record.close()
        self._record = None


def refusal(report: Report, policy: PaddingPolicy, budget: float) -> str:
    """Why the start stops: how many of how many, on which path, what to set instead."""
    reasons = "; ".join(dict.fromkeys(violation.message for violation in report.violations))
    loss = report.loss_fraction
    ways = ["MOE_SERVE_PADDING=aligned"] if policy is not PaddingPolicy.ALIGNED else []
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
    # In decimal: 0.07 * 100 is a little above 7 in binary.
    return float(Decimal(repr(loss)).quantize(Decimal("0.01"), rounding=ROUND_CEILING))


def _shape_proof(seen: shape.Seen, report: Report) -> ShapeProof:
    part = report.call.part
    return ShapeProof(
        padded=HiddenIntermediate(hidden=part.padded_hidden, intermediate=part.padded_intermediate),
        hidden=part.hidden,
        live_neurons=part.intermediate,
        experts=part.experts,
        all_experts=seen.all_experts,
        top_k=part.top_k,
        quant=report.call.quant.value,
        path=report.paths[0].path.value,
        raw=_sizes(part.raw),
        upstream=_sizes(seen.upstream),
        sent=_sizes(report.sent),
        lost_neurons=report.lost.stage1_neurons,
        loss_fraction=report.loss_fraction,
        bytes_ratio=report.paths[0].bytes_ratio,
        safe=report.safe,
        verified=report.call.verified,
        unverified=tuple(report.call.unverified),
        # AITER takes -1 as 1: no split.
        ksplit=abs(report.call.ksplit),
        tables_digest=report.call.site.digest,
        violations=tuple(
            BrokenRule(id=violation.rule.value, message=violation.message)
            for violation in report.violations
        ),
    )


def _sizes(pads: Pads) -> HiddenIntermediate:
    return HiddenIntermediate(hidden=pads.hidden, intermediate=pads.intermediate)
