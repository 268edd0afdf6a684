"""Readers of three result formats: `vllm bench serve`, InferenceX aggregates, guidellm."""

import datetime
from collections.abc import Callable, Iterator, Mapping

from moe_serve.benchmark.fields import (
    optional_int,
    optional_positive,
    positive,
    section,
)
from moe_serve.benchmark.labels import ArmNames, labels
from moe_serve.benchmark.results import BenchmarkRun, Clock, Latencies
from moe_serve.errors import UsageError

Content = Mapping[str, object]


def runs_of(document: object, *, stem: str, source: str, names: ArmNames) -> list[BenchmarkRun]:
    """All runs in one parsed JSON document; `stem` is its file's name without ending.

    A list is read as several documents: InferenceX collects its aggregates so.

    Raises:
        UsageError: not one of the formats, or a number or label that is missing or no good.
    """
    if isinstance(document, list):
        return [
            run
            for number, part in enumerate(document)
            for run in runs_of(part, stem=stem, source=f"{source}[{number}]", names=names)
        ]
    if isinstance(document, Mapping):
        for key, parse in _FORMATS.items():
            if key in document:
                return list(parse(document, stem, source, names))
    raise UsageError(
        f"{source}: neither a result of vllm bench serve (total_token_throughput), nor an "
        "InferenceX aggregate (tput_per_gpu), nor a guidellm report (benchmarks)"
    )


def _inferencex(
    content: Content, stem: str, source: str, names: ArmNames
) -> Iterator[BenchmarkRun]:
    """Latencies in seconds; throughput already per GPU."""
    which = labels(content, stem, names, source, optional_int(content, "conc", source))
    yield BenchmarkRun(
        arm=which.arm,
        cell=which.cell,
        pair=which.pair,
        tput_per_gpu=positive(content, "tput_per_gpu", source),
        latencies=_latencies(content, "", 1.0, source),
        failed=optional_int(content, "failed", source),
        output_tokens=optional_int(content, "total_output_tokens", source),
        source=source,
        planned_pairs=optional_int(content, "planned_pairs", source),
        started=optional_positive(content, "started", source),
        client_busy=optional_positive(content, "client_busy", source),
    )


def _vllm_bench(
    content: Content, stem: str, source: str, names: ArmNames
) -> Iterator[BenchmarkRun]:
    """Latencies in milliseconds; throughput of the whole server."""
    which = labels(content, stem, names, source, optional_int(content, "max_concurrency", source))
    yield BenchmarkRun(
        arm=which.arm,
        cell=which.cell,
        pair=which.pair,
        tput_per_gpu=positive(content, "total_token_throughput", source) / which.gpus,
        latencies=_latencies(content, "_ms", 1e-3, source),
        failed=_failed(content, source),
        output_tokens=optional_int(content, "total_output_tokens", source),
        source=source,
        planned_pairs=optional_int(content, "planned_pairs", source),
        started=_ended(content, source),
        clock=Clock.LOCAL_END,
    )


def _ended(content: Content, source: str) -> float | None:
    """When the run ended, in seconds of the client's local time: its zone is not known."""
    text = content.get("date")
    if text is None:
        return None
    try:
        found = datetime.datetime.strptime(f"{text}+0000", "%Y%m%d-%H%M%S%z")
    except ValueError as error:
        raise UsageError(f"{source}: date is {text}; as 20260501-120000 is needed") from error
    return found.timestamp()


def _failed(content: Content, source: str) -> int | None:
    """The failed requests; older clients write `num_prompts` and `completed` instead."""
    failed = optional_int(content, "failed", source)
    sent = optional_int(content, "num_prompts", source)
    completed = optional_int(content, "completed", source)
    if failed is None and sent is not None and completed is not None:
        return max(0, sent - completed)
    return failed


def _latencies(content: Content, ending: str, unit: float, source: str) -> Latencies:
    def seconds(name: str) -> float | None:
        value = optional_positive(content, f"{name}{ending}", source)
        return None if value is None else value * unit

    return Latencies(
        ttft_p99=seconds("p99_ttft"),
        tpot_p99=seconds("p99_tpot"),
        itl_p99=seconds("p99_itl"),
    )


def _guidellm(content: Content, stem: str, source: str, names: ArmNames) -> Iterator[BenchmarkRun]:
    """One benchmark a concurrency; of arm, pair and GPUs only the file's name knows."""
    benchmarks = content["benchmarks"]
    if not isinstance(benchmarks, list) or not benchmarks:
        raise UsageError(f"{source}: benchmarks is empty; the run has no result")
    for number, benchmark in enumerate(benchmarks):
        where = f"{source}: benchmarks[{number}]"
        if not isinstance(benchmark, Mapping):
            raise UsageError(f"{where} is no object; the file is not complete")
        yield _guidellm_run(benchmark, stem, where, names)


def _guidellm_run(benchmark: Content, stem: str, source: str, names: ArmNames) -> BenchmarkRun:
    strategy = section(section(benchmark, "config", source), "strategy", source)
    if strategy.get("type_") != "concurrent":
        raise UsageError(
            f"{source}: strategy is {strategy.get('type_')}; only concurrent holds the number of "
            "requests in flight fixed, so only its rates can be compared"
        )
    metrics = section(benchmark, "metrics", source)
    totals = section(metrics, "request_totals", source)
    which = labels({}, stem, names, source, optional_int(strategy, "streams", source))
    rate = _successful(metrics, "tokens_per_second", source)
    ttft = _successful(metrics, "time_to_first_token_ms", source)
    # guidellm's `time_per_output_token_ms` counts the first token too; its `inter_token_latency_ms`
    # is a request's mean over the later ones, which the other tools call TPOT.
    tpot = _successful(metrics, "inter_token_latency_ms", source)
    output = _successful(metrics, "output_token_count", source)
    return BenchmarkRun(
        arm=which.arm,
        cell=which.cell,
        pair=which.pair,
        tput_per_gpu=positive(rate, "mean", f"{source}: tokens_per_second") / which.gpus,
        latencies=Latencies(
            ttft_p99=_p99(ttft, f"{source}: time_to_first_token_ms"),
            tpot_p99=_p99(tpot, f"{source}: inter_token_latency_ms"),
        ),
        failed=optional_int(totals, "errored", source),
        output_tokens=optional_int(output, "total_sum", f"{source}: output_token_count"),
        source=source,
        started=optional_positive(benchmark, "start_time", source),
    )


def _successful(metrics: Content, name: str, source: str) -> Content:
    return section(section(metrics, name, source), "successful", f"{source}: {name}")


def _p99(summary: Content, source: str) -> float | None:
    value = optional_positive(section(summary, "percentiles", source), "p99", source)
    return None if value is None else value * 1e-3


# The key that only this format has; an InferenceX aggregate may carry the client's keys too.
_FORMATS: dict[str, Callable[[Content, str, str, ArmNames], Iterator[BenchmarkRun]]] = {
    "tput_per_gpu": _inferencex,
    "total_token_throughput": _vllm_bench,
    "benchmarks": _guidellm,
}
