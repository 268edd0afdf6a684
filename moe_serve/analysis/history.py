"""What a source hands to the judge: the raw counters of every pod of both arms, as scraped."""

from dataclasses import dataclass, field, replace

import numpy as np

from moe_serve.analysis.provenance import Provenance
from moe_serve.analysis.series import Cell, Floats
from moe_serve.analysis.service import CounterSeries, Measure
from moe_serve.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeries:
    """One pod's cumulative counters.

    `times` (scrapes,) are seconds since the epoch and grow. `counter_generation` (scrapes,) changes
    with each restart of a process and each re-capture of its graphs. `counts` and `busy` (scrapes,
    cells) are runs and busy seconds since the process started, NaN where the scrape did not have
    the cell.
    """

    pod: str
    times: Floats
    counter_generation: Floats
    counts: Floats
    busy: Floats

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        scrapes = len(self.times)
        if self.counter_generation.shape != (scrapes,) or len(self.counts) != scrapes:
            raise UsageError(f"{self.pod}: times, lives and counters are of different lengths")
        if self.counts.shape != self.busy.shape:
            raise UsageError(f"{self.pod}: runs and busy seconds have different shapes")
        if not np.isfinite(self.times).all() or (np.diff(self.times) <= 0).any():
            raise UsageError(f"{self.pod}: the scrapes' times do not grow")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmHistory:
    """One arm. `facts` are what its pods say of their configuration, by name; a fact on which its
    own pods disagree holds all values, sorted and joined by ` | `. `service` is what its servers
    count of requests, for the guards and the traffic split. `neurons` are those lost and those live
    of an expert on one rank, as the worst pod says; `bytes_ratio` is how many bytes the timed MoE
    calls fetch over those that the live sizes need, as the workers model it; `moe_layers` is how
    many the served model has on a rank; `began` when the oldest of its pods' last processes
    started, in seconds since the epoch. None: none says.
    """

    name: str
    pods: tuple[PodSeries, ...]
    facts: dict[str, str] = field(default_factory=dict)
    service: tuple[CounterSeries, ...] = ()
    neurons: tuple[int, int] | None = None
    bytes_ratio: float | None = None
    moe_layers: int | None = None
    began: float | None = None

    @property
    def requests(self) -> int | None:
        """How many requests it finished in the window, None where no metric tells: growth, counted
        anew after each fall.
        """
        found = [one.values for one in self.service if one.measure is Measure.FINISHED]
        if not found:
            return None
        finite = [values[np.isfinite(values)] for values in found]
        return round(sum(float(np.clip(np.diff(values), 0, None).sum()) for values in finite))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Both arms over one stretch of time, the columns of all counters being `cells`.

    `start` and `end` are seconds since the epoch: what was asked for, covered or not. `origin` is
    where it comes from, in words and without credentials (it is shown, and written to the audit);
    `provenance` how it was asked for, None where no source was.
    """

    cells: tuple[Cell, ...]
    stable: ArmHistory
    canary: ArmHistory
    start: float
    end: float
    origin: str
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        """Refuse columns that do not fit."""
        for arm in (self.stable, self.canary):
            for pod in arm.pods:
                if pod.counts.shape[1] != len(self.cells):
                    raise UsageError(
                        f"{arm.name}/{pod.pod}: {pod.counts.shape[1]} columns for "
                        f"{len(self.cells)} cells"
                    )
        if not self.start < self.end:
            raise UsageError("a history needs a start before its end")

    def until(self, end: float) -> "History":
        """The same as it stood at an earlier moment."""
        return replace(
            self, stable=_arm_until(self.stable, end), canary=_arm_until(self.canary, end), end=end
        )


def _arm_until(arm: ArmHistory, end: float) -> ArmHistory:
    pods = []
    for pod in arm.pods:
        count = int(np.searchsorted(pod.times, end, side="right"))
        pods.append(
            PodSeries(
                pod=pod.pod,
                times=pod.times[:count],
                counter_generation=pod.counter_generation[:count],
                counts=pod.counts[:count],
                busy=pod.busy[:count],
            )
        )
    service = tuple(one.until(end) for one in arm.service)
    return replace(arm, pods=tuple(pods), service=service)
