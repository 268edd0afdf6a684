"""Synthetic fleets whose truth is known, as the samples that a source would collect."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.sources.streams import Streams

START = 1_780_000_000.0
BUCKETS = (8, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """`gain` is the canary's true speed-up, `noise` a log SD a scrape and batch size.

    `restart` names a pod that restarts at half time; `silent` an arm that has no pod. Pairs are of
    stable and canary; `bytes_ratios` are the bytes fetched over those needed, None: not exported.
    """

    pods: int = 2
    hours: float = 4.0
    gain: float = 1.08
    noise: float = 0.03
    interval: float = 15.0
    restart: str = ""
    silent: str = ""
    policies: tuple[str, str] = ("zero", "aligned")
    versions: tuple[str, str] = ("0.32.0", "0.32.0")
    digests: tuple[str, str] = ("0123456789abcdef", "0123456789abcdef")
    lost_neurons: tuple[int, int] = (0, 0)
    bytes_ratios: tuple[float, float] | None = None
    buckets: Sequence[int] = BUCKETS
    seed: int = 0
    users: "Users | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """What vLLM counts of requests; the pairs are of stable and canary.

    `requests` finish a scrape and pod. `ttft` and `itl` are median seconds of a log-normal latency;
    `errors` and `preemptions` are rates a request.
    """

    requests: float = 40.0
    ttft: tuple[float, float] = (0.3, 0.3)
    itl: tuple[float, float] = (0.012, 0.011)
    errors: tuple[float, float] = (0.0, 0.0)
    preemptions: tuple[float, float] = (0.005, 0.005)


def streams(fleet: Fleet) -> Streams:
    """Counters of every pod, in the exporter's names."""
    source, made = np.random.default_rng(fleet.seed), Streams()
    for number, arm in enumerate(("stable", "canary")):
        if arm == fleet.silent:
            continue
        for pod in range(fleet.pods):
            _pod(made, fleet, source, arm, f"{arm}-{pod}", fleet.gain if number else 1.0)
    return made


def _pod(
    made: Streams, fleet: Fleet, source: np.random.Generator, arm: str, pod: str, gain: float
) -> None:
    scrapes = int(fleet.hours * 3600 / fleet.interval) + 1
    # Pods are not scraped at the same moment.
    times = START + float(source.integers(0, 10)) + fleet.interval * np.arange(scrapes)
    # `arm` as the chart's pods have it: the release's name.
    labels = {
        "track": arm, "arm": f"gptoss-{arm}", "pod": pod, "instance": f"{pod}:9400", "rank": "0",
    }  # fmt: skip
    half = scrapes // 2 if pod == fleet.restart else scrapes
    counter_generation = np.where(np.arange(scrapes) < half, 1000.0, 2000.0)
    index = 0 if arm == "stable" else 1
    if fleet.users:
        _users(made, fleet.users, source, labels, times, index)
    _series(made, "moe_serve_source_start_timestamp_seconds", labels, times, counter_generation)
    facts = {"policy": fleet.policies[index], "worker_config_digest": fleet.digests[index]}
    _series(made, "moe_serve_config_info", {**labels, **facts}, times, np.ones(scrapes))
    facts = {"vllm": fleet.versions[index]}
    if fleet.bytes_ratios:
        for basis, each in (("unpadded", 1e9), ("executed", 1e9 * fleet.bytes_ratios[index])):
            own = {**labels, "basis": basis}
            grown = each * np.arange(1.0, scrapes + 1)
            _series(made, "moe_serve_kernel_bytes_total", own, times, grown)
    for which, value in (("lost", float(fleet.lost_neurons[index])), ("live", 2880.0)):
        name = f"moe_serve_padding_{which}_neurons"
        _series(made, name, labels, times, np.full(scrapes, value))
    _series(made, "moe_serve_build_info", {**labels, **facts}, times, np.ones(scrapes))
    _series(made, "moe_serve_moe_layers", labels, times, np.full(scrapes, 4.0))
    for bucket in fleet.buckets:
        steps = source.poisson(60, scrapes).astype(float)
        for prefix, seconds, extra in (
            ("step", 0.008 + 0.0001 * bucket, {}),
            ("kernel", 0.001 + 0.00002 * bucket, {"layer": "0", "role": "target"}),
        ):
            spent = steps * seconds / gain * np.exp(fleet.noise * source.standard_normal(scrapes))
            own = {**labels, **extra, "phase": "decode", "bucket": str(bucket)}
            count, busy = {
                "step": ("steps_timed_total", "step_seconds_total"),
                "kernel": ("kernel_invocations_total", "kernel_seconds_total"),
            }[prefix]
            _series(made, f"moe_serve_{count}", own, times, _counted(steps, half))
            _series(made, f"moe_serve_{busy}", own, times, _counted(spent, half))


def _users(
    made: Streams,
    users: Users,
    source: np.random.Generator,
    labels: dict[str, str],
    times: "np.ndarray",
    index: int,
) -> None:
    finished = source.poisson(users.requests, len(times)).astype(float)
    failed = source.poisson(finished * users.errors[index]).astype(float)
    for reason, more in (("stop", finished - failed), ("error", failed)):
        own = {**labels, "finished_reason": reason}
        _series(made, "vllm:request_success_total", own, times, np.cumsum(more))
    more = source.poisson(finished * users.preemptions[index]).astype(float)
    _series(made, "vllm:num_preemptions_total", labels, times, np.cumsum(more))
    edges = np.array([*np.geomspace(0.001, 10, 40), np.inf])
    for name, median, each in (
        ("time_to_first_token", users.ttft[index], 1),
        ("inter_token_latency", users.itl[index], 20),
    ):
        below = np.vectorize(lambda z: 0.5 * (1 + math.erf(z / math.sqrt(2))))
        shares = np.diff(below(np.log(edges / median) / 0.5), prepend=0.0)
        counts = source.multinomial((finished * each).astype(int), shares / shares.sum())
        for edge, column in zip(edges, counts.cumsum(axis=1).T, strict=True):
            own = {**labels, "le": "+Inf" if math.isinf(edge) else repr(float(edge))}
            _series(
                made, f"vllm:{name}_seconds_bucket", own, times, np.cumsum(column).astype(float)
            )


def _counted(growth: "np.ndarray", restart: int) -> "np.ndarray":
    whole = np.cumsum(growth)
    if restart < len(whole):
        whole[restart:] -= whole[restart - 1]
    return whole


def _series(
    made: Streams, name: str, labels: dict[str, str], times: "np.ndarray", values: "np.ndarray"
) -> None:
    key = name + repr(sorted(labels.items()))
    stream = made.add(key, name, labels)
    stream.times.extend(round(float(t), 3) for t in times)
    stream.values.extend(float(v) for v in values)
    assert all(math.isfinite(v) for v in stream.values)
