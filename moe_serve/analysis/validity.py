"""What must hold for a comparison to mean anything, apart from its numbers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from moe_serve.errors import UsageError
from moe_serve.metrics.labels import UNKNOWN

# Pods that are started together begin to serve within the time that a big model takes to load, and
# a restart or two.
_TOGETHER_SECONDS = 2 * 3600.0
# How strongly the alternative of the ratio test keeps to the expected share.
_RATIO_PRIOR = 100.0
# Facts in which two arms differ by design.
_NAMES = ("pod", "instance")


class EvidenceGrade(StrEnum):
    """Where the rates come from, best first."""

    COUNTERS = "A"
    PROBE = "B"
    STOCK_METRICS = "C"
    SINGLE_RUNS = "D"

    @property
    def meaning(self) -> str:
        """The grade in words."""
        return {
            EvidenceGrade.COUNTERS: "counters in the worker, at exact batch sizes",
            EvidenceGrade.PROBE: "closed-loop probes at fixed concurrency",
            EvidenceGrade.STOCK_METRICS: "vLLM's own metrics, modelled on load",
            EvidenceGrade.SINGLE_RUNS: "one unpaired run per arm: repeatability is unknown",
        }[self]

    @property
    def below(self) -> "EvidenceGrade":
        """The next grade below."""
        grades = list(EvidenceGrade)
        return grades[min(grades.index(self) + 1, len(grades) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCounts:
    """How many requests each arm got, and which share of both the canary was to get."""

    stable: int
    canary: int
    canary_share: float

    @property
    def evidence_against(self) -> float:
        """The log of how much better another share explains the counts.

        A Bayes factor with a beta alternative around the expected share: it may be looked at
        again and again, since the chance that it ever exceeds 1/a is at most a (Lindon and Malek,
        NeurIPS 2022).
        """
        prior = _RATIO_PRIOR * self.canary_share, _RATIO_PRIOR * (1 - self.canary_share)
        expected = _log_beta(*prior)
        null = self.canary * math.log(self.canary_share)
        null += self.stable * math.log1p(-self.canary_share)
        found = _log_beta(prior[0] + self.canary, prior[1] + self.stable)
        return found - expected - null


def _log_beta(one: float, other: float) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Facts about a run that its numbers do not show.

    `deadline_blocks` is the horizon that was declared up front, `seen_blocks` how many blocks are
    over (void ones included). `void_share` is None before anything was expected; `void_reasons`
    say what is void, most telling first. `config_differences` names what differs between the arms
    and is not under test, `config_unknown` the arms of which it is not known. `declared` is what
    the operator says and the data cannot show. `blind_seconds` is the age of the older arm's last
    data, `older_seconds` how long before the canary's oldest process stable's oldest one began.
    """

    deadline_blocks: int
    seen_blocks: int
    block_seconds: float
    void_share: float | None = None
    void_reasons: tuple[str, ...] = ()
    config_differences: tuple[str, ...] = ()
    config_unknown: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    dead_arms: tuple[str, ...] = ()
    requests: RequestCounts | None = None
    blind_seconds: float | None = None
    older_seconds: float | None = None
    evidence: EvidenceGrade = EvidenceGrade.COUNTERS
    analysis_plan_digest: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        share = self.void_share
        if self.deadline_blocks < 1 or (share is not None and not 0 <= share <= 1):
            raise UsageError(
                f"a deadline of {self.deadline_blocks} blocks, {share} of the windows void: "
                "that cannot be"
            )

    @property
    def together(self) -> bool:
        """The arms' pods began together, or nothing tells that they did not."""
        return self.older_seconds is None or abs(self.older_seconds) <= _TOGETHER_SECONDS

    @property
    def grade(self) -> EvidenceGrade:
        """Of the evidence: one lower without a fresh baseline, since pods change with their age."""
        return self.evidence if self.together else self.evidence.below

    @property
    def comparator(self) -> str:
        """What the canary is held against, by its pods' age; empty if that is not known."""
        if self.older_seconds is None:
            return ""
        if self.together:
            return "a fresh baseline: both arms' pods began together"
        when = "before" if self.older_seconds > 0 else "after"
        hours = abs(self.older_seconds) / 3600
        return f"pods that began {hours:.0f} h {when} the canary's, so one grade lower"

    @property
    def deadline_reached(self) -> bool:
        """The declared time is over."""
        return self.seen_blocks >= self.deadline_blocks


def config_differences(
    stable: Mapping[str, str], canary: Mapping[str, str], under_test: tuple[str, ...]
) -> tuple[str, ...]:
    """The facts in which the arms differ and that are not under test, with both values."""
    left_out = {*under_test, *_NAMES}
    return tuple(
        f"{name}: {stable.get(name, UNKNOWN)} and {canary.get(name, UNKNOWN)}"
        for name in sorted(stable.keys() | canary.keys())
        if name not in left_out and stable.get(name) != canary.get(name)
    )
