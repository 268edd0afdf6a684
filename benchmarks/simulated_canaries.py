"""Canaries by simulation: what the judge's table of blocks would hold, when the truth is known.

AR(1) noise a minute, arm and cell, lost minutes, pods that lie apart for good, or that restart and
start anew, drifts of one arm and of both, a mix of batch sizes that moves through the day.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from moe_serve.analysis.noise import block_seconds
from moe_serve.analysis.table import Estimand

Floats = NDArray[np.float64]

# vLLM pull request 42098, tokens/s a GPU, before and after: 1k1k, then 8k1k, 4 to 64 at once.
BEFORE = np.array([1650, 2598, 4271, 6866, 10431, 6917, 10388, 15243, 22147, 30309.0])
AFTER = np.array([1727, 2843, 4737, 7812, 12051, 6830, 10985, 16348, 23618, 31564.0])
PUBLISHED = np.log(AFTER / BEFORE)
CELLS = len(PUBLISHED)
MARGIN = math.log(1.04)
NOISE = 0.04
_MINUTES_A_DAY = 24 * 60
# From a pod's end until its windows count again: the model is loaded, graphs are captured.
DOWN_MINUTES = 20
# Cells that are busy at once while the mix moves, as the SD of a bell over the ten of them.
_RAMP_WIDTH = 1.5
# Of the usual traffic: below it a cell does not reach the runs that a block needs.
_RAMP_LEAST = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of canary. `truth` is the pooled log gain, spread over cells as `shape` says.

    `restarts` are those of a pod a day. `drift` is of one arm, or of both. `ramp` says what weights
    a moving mix gets: "own" of the run so far, or those "registered" before the start.
    """

    name: str
    kind: str
    truth: float
    shape: str = "equal"
    phi: float = 0.7
    aa_phi: float | None = None
    correlation: float = 0.0
    gaps: str = "iid"
    pods: int = 4
    pod_variation: float = 0.015
    freedom: float | None = None
    starts: int = 0
    start_sd: float = 0.0
    start_kept: bool = True
    restarts: float = 0.0
    diurnal: bool = False
    drift: str = ""
    ramp: str = ""
    hours: int = 12
    calibrated: bool = True
    estimand: Estimand = Estimand.MIX

    @property
    def block_minutes(self) -> int:
        """By the rule, from the A/A run's own memory."""
        known = self.phi if self.aa_phi is None else self.aa_phi
        return round(block_seconds(known) / 60)


def blocks(source: np.random.Generator, case: Case, runs: int, hours: int, phi: float) -> Floats:
    """Log ratios of blocks without any gain, (runs, blocks, cells)."""
    minutes = hours * 60
    own = noise(source, (runs, CELLS, minutes), phi)
    if case.correlation:
        shared = noise(source, (runs, 1, minutes), phi)
        own = math.sqrt(1 - case.correlation) * own + math.sqrt(case.correlation) * shared
    if case.diurnal:
        own *= 1 + 0.5 * np.sin(2 * math.pi * np.arange(minutes) / _MINUTES_A_DAY)
    keep = _kept(source, case, own.shape)
    if case.restarts:
        ours = _restarting(source, case, runs, minutes) - _restarting(source, case, runs, minutes)
        own += np.nan_to_num(ours)[:, None, :]
        keep &= np.isfinite(ours)[:, None, :]
    found = (
        _of_sums(source, own, keep, case.block_minutes)
        if case.drift == "both arms"
        else _of_means(own, keep, case.block_minutes)
    )
    if case.ramp:
        found = np.where(ramp(case, hours).T > _RAMP_LEAST, found, math.nan)
    return found


def noise(source: np.random.Generator, shape: tuple[int, ...], phi: float) -> Floats:
    """Stationary AR(1) along the last axis: the difference of two arms, log SD a minute."""
    shocks = source.standard_normal(shape) * NOISE * math.sqrt(2 * (1 - phi**2))
    shocks[..., 0] /= math.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], shocks, axis=-1))


def _kept(source: np.random.Generator, case: Case, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The minutes that are not lost."""
    if case.gaps == "hours":
        runs, _, minutes = shape
        lost = np.repeat(source.random((runs, 1, minutes // 60)) < 0.15, 60, axis=2)
        return np.array(np.broadcast_to(~lost, shape))
    return np.asarray(source.random(shape) >= 0.3)


def _blocked(values: Floats, length: int) -> Floats:
    """Sums over blocks of minutes, (runs, blocks, cells)."""
    count = values.shape[-1] // length
    blocking = (*values.shape[:-1], count, length)
    return np.moveaxis(values[..., : count * length].reshape(blocking).sum(-1), 1, 2)


def _of_means(own: Floats, keep: NDArray[np.bool_], length: int) -> Floats:
    whole, seen = _blocked(np.where(keep, own, 0.0), length), _blocked(keep * 1.0, length)
    return np.divide(whole, seen, out=np.full(whole.shape, math.nan), where=seen > 0)


def _of_sums(
    source: np.random.Generator, own: Floats, keep: NDArray[np.bool_], length: int
) -> Floats:
    """As the judge has it: each arm's runs over its busy seconds, its own traffic in every minute.

    Both arms' rates rise and fall together by 20 % in three hours, so traffic that comes at another
    moment of a block meets another rate.
    """
    minutes = own.shape[-1]
    common = 0.1 * np.sin(2 * math.pi * np.arange(minutes) / 180)
    logs = []
    for rates in (common + own / 2, common - own / 2):
        runs = source.gamma(4.0, size=own.shape) * keep
        busy = _blocked(runs * np.exp(-rates), length)
        many = _blocked(runs, length)
        ratio = np.divide(many, busy, out=np.ones(many.shape), where=busy > 0)
        logs.append(np.where(busy > 0, np.log(ratio), math.nan))
    return logs[0] - logs[1]


def _restarting(source: np.random.Generator, case: Case, runs: int, minutes: int) -> Floats:
    """An arm's mean over the pods that serve, by how far each start lies off: (runs, minutes)."""
    begun = source.random((runs, case.pods, minutes)) < case.restarts / _MINUTES_A_DAY
    start = begun.cumsum(axis=-1)
    off = source.standard_normal((runs, case.pods, int(start.max()) + 1)) * case.start_sd
    now = np.take_along_axis(off, start, axis=-1)
    before = np.zeros_like(start)
    before[..., DOWN_MINUTES:] = start[..., :-DOWN_MINUTES]
    up = start == before
    return np.divide(
        (now * up).sum(axis=1),
        up.sum(axis=1),
        out=np.full((runs, minutes), math.nan),
        where=up.any(axis=1),
    )


def ramp(case: Case, hours: int) -> Floats:
    """The cells' traffic by block, (cells, blocks): small batches by night, large ones by noon."""
    count = hours * 60 // case.block_minutes
    hour = (np.arange(count) + 0.5) * case.block_minutes / 60
    # A day's A/A run sees the way there and back.
    middle = (CELLS - 1) * (1 - np.abs(hour / 12 - 1))
    traffic = np.exp(-0.5 * ((np.arange(CELLS)[:, None] - middle) / _RAMP_WIDTH) ** 2)
    return np.asarray(traffic)


def weights(case: Case, interim_analyses: tuple[int, ...]) -> Floats:
    """The weights at each look, (looks, cells)."""
    if not case.ramp:
        return np.full((len(interim_analyses), CELLS), 1 / CELLS)
    traffic = ramp(case, case.hours)
    shares = np.stack([traffic[:, :count].sum(axis=1) for count in interim_analyses])
    shares /= shares.sum(axis=1, keepdims=True)
    if case.ramp == "registered":
        shares[:] = shares[-1]
    return np.asarray(shares)


def gains(case: Case) -> Floats:
    """The cells' true log gains, whose pooled value over the whole run is the case's truth."""
    shape = PUBLISHED - PUBLISHED.mean() if case.shape == "published" else np.zeros(CELLS)
    if case.shape == "small batches":
        shape = np.linspace(0.04, -0.04, CELLS)
    if case.estimand is Estimand.EQUAL:
        return np.asarray(shape + case.truth)
    # The mix's value is not the mean of the logs: shift until it fits exactly.
    last = weights(case, (case.hours * 60 // case.block_minutes,))[0]
    return np.asarray(shape + case.truth + math.log(float(last @ np.exp(-shape))))


def offsets(source: np.random.Generator, case: Case, runs: int) -> tuple[Floats, Floats, float]:
    """How far the arms lie apart in each run, what the judge believes of it, and how well."""
    share = 2 / case.pods
    kept = case.start_sd**2 / max(1, case.starts)
    pod_variation = 0.0 if case.starts else case.pod_variation**2
    pods = source.standard_normal((2, runs, case.pods)).mean(axis=2) * math.sqrt(pod_variation)
    starts = source.standard_normal((2, runs, case.pods)).mean(axis=2) * math.sqrt(kept)
    # Pods that restart have a start each time, which the blocks hold.
    offset = pods[1] - pods[0] + (0.0 if case.restarts else starts[1] - starts[0])
    known = np.ones(runs)
    if case.freedom is not None:
        known = source.chisquare(case.freedom, runs) / case.freedom
    believed = pod_variation + (kept if case.start_kept else 0.0)
    freedom = math.inf if case.freedom is None else case.freedom
    return offset, share * believed * known, freedom
