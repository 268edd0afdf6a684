"""How noisy blocks are, and how far arms of equal software lie apart: from an A/A run, and now."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from moe_serve.analysis.boundary import freedom_of_sum
from moe_serve.analysis.series import Floats
from moe_serve.errors import UsageError

MAX_AUTOCORRELATION = 0.9
# What an estimated variance is multiplied with, since it may be too small by chance.
SAFETY, SAFETY_WITHOUT_CALIBRATION = 1.1, 1.25
MIN_BLOCK_SECONDS = 600.0
FIRST_ANALYSIS, FIRST_ANALYSIS_WITHOUT_CALIBRATION = 6, 12


class Design(StrEnum):
    """Whether each arm keeps its GPUs, or the arms swap them within every paired block."""

    PARALLEL = "parallel"
    CROSSOVER = "crossover"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodVariation:
    """How far equal arms lie apart for good: log SD between GPUs and between process starts.

    `*_freedom` are the degrees of freedom of each figure; inf says that it is declared, not
    estimated.
    """

    gpu_sd: float = 0.0
    gpu_freedom: float = math.inf
    start_sd: float = 0.0
    start_freedom: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what no spread can be."""
        for name in ("gpu", "start"):
            sd, freedom = getattr(self, f"{name}_sd"), getattr(self, f"{name}_freedom")
            if not 0 <= sd < 1 or not freedom >= 1:
                raise UsageError(
                    f"spread: {name}_sd {sd} with {freedom} degrees of freedom; "
                    "allowed: 0 <= sd < 1 and at least 1"
                )

    def offset(self, design: Design, stable_pods: int, canary_pods: int) -> tuple[float, float]:
        """Variance of the arms' offset, with its degrees of freedom.

        A crossover removes the GPUs' part. The starts' part stays: a pod that is swapped goes on
        with the memory layout, the clocks and the autotuning of its start.
        """
        share = 1 / stable_pods + 1 / canary_pods
        gpu = 0.0 if design is Design.CROSSOVER else self.gpu_sd**2
        parts = [(gpu, self.gpu_freedom), (self.start_sd**2, self.start_freedom)]
        return share * math.fsum(variance for variance, _ in parts), freedom_of_sum(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What an A/A run of equal arms told: a block's long-run variance, and what it rests on.

    `block_variance` is of the pooled log ratio of one block of `block_seconds`, so that the
    variance of a mean over K blocks is `block_variance / K`.
    """

    block_seconds: float
    block_variance: float
    blocks: int
    autocorrelation: float

    @property
    def hours(self) -> float:
        """How long the A/A run was."""
        return self.blocks * self.block_seconds / 3600


def long_run_variance(values: Floats) -> tuple[Floats, Floats]:
    """(variance, lag-1 autocorrelation) of series along the last axis; a mean over K of them has
    the variance / K.

    An AR(1) model: r is corrected for its small-sample bias ((1 + 3 r) / K too low) and clipped
    to [0, 0.9]; a negative one never narrows. Shape (..., K) gives two of shape (...).
    """
    count = values.shape[-1]
    pod_variation = values - values.mean(axis=-1, keepdims=True)
    squares = (pod_variation**2).sum(axis=-1)
    products = (pod_variation[..., :-1] * pod_variation[..., 1:]).sum(axis=-1)
    plain = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    r = np.clip(plain + (1 + 3 * plain) / count, 0, MAX_AUTOCORRELATION)
    return squares / (count - 1) * (1 + r) / (1 - r), r


def plain_variance(long_run: Floats | float, autocorrelation: Floats | float) -> Floats | float:
    """The variance of single blocks behind a long-run variance."""
    return long_run * (1 - autocorrelation) / (1 + autocorrelation)


def block_variance(in_run: Floats, count: int, calibrated: Floats | float | None) -> Floats:
    """The variance of one block that the interval uses, never below what this run shows."""
    if calibrated is None:
        if count <= 3:
            return np.full_like(in_run, math.inf)
        return SAFETY_WITHOUT_CALIBRATION * in_run * (count + 2) / (count - 3)
    return SAFETY * np.maximum(in_run, calibrated)


def block_seconds(autocorrelation: float, window_seconds: float = 60.0) -> float:
    """The rule for a block's length: ten minutes, or 1.5 times the noise's own memory.

    `autocorrelation` is that of neighbouring windows of an A/A run; (1 + r) / (1 - r) windows is
    the integrated autocorrelation time of such a series.
    """
    memory = (1 + autocorrelation) / (1 - autocorrelation) * window_seconds
    return max(MIN_BLOCK_SECONDS, 1.5 * memory)
