import json
from pathlib import Path
from typing import Any

import pytest

from moe_serve.benchmark.labels import ArmNames
from moe_serve.benchmark.reading import read_runs
from moe_serve.benchmark.results import BenchmarkArm, BenchmarkRun
from moe_serve.errors import UsageError

VLLM: dict[str, Any] = {
    "date": "20260501-120000",
    "model_id": "openai/gpt-oss-120b",
    "num_prompts": 40,
    "completed": 40,
    "failed": 0,
    "max_concurrency": 4,
    "total_token_throughput": 3300.0,
    "total_output_tokens": 40000,
    "median_ttft_ms": 50.0,
    "p99_ttft_ms": 80.0,
    "p99_tpot_ms": 9.0,
    "p99_itl_ms": 10.0,
}
INFERENCEX: dict[str, Any] = {
    "hw": "mi355x",
    "conc": 4,
    "isl": 1024,
    "osl": 1024,
    "tp": 2,
    "tput_per_gpu": 1650.0,
    "p99_ttft": 0.08,
    "p99_itl": 0.01,
}


def summary(**values: float) -> dict[str, Any]:
    return {"successful": {**values, "percentiles": {"p99": values.get("p99", 1.0)}}}


GUIDELLM: dict[str, Any] = {
    "benchmarks": [
        {
            "start_time": 1777000000.0,
            "config": {"strategy": {"type_": "concurrent", "streams": 4}},
            "metrics": {
                "request_totals": {"successful": 40, "errored": 2, "incomplete": 0, "total": 42},
                "tokens_per_second": summary(mean=3300.0),
                "time_to_first_token_ms": summary(median=50.0, p99=80.0),
                "inter_token_latency_ms": summary(median=8.0, p99=9.0),
                "output_token_count": summary(total_sum=40000.0),
            },
        }
    ]
}


def read(folder: Path, name: str, document: object) -> BenchmarkRun:
    path = folder / name
    path.write_text(json.dumps(document), "utf-8")
    (run,) = read_runs([path], ArmNames())
    return run


def test_vllm_bench_is_read_with_its_labels_from_the_name(tmp_path: Path) -> None:
    run = read(tmp_path, "canary-1k1k-c4-tp2-p3.json", VLLM)
    assert (run.arm, str(run.cell), run.pair) == (BenchmarkArm.CANARY, "1k1k c4", 3)
    assert run.tput_per_gpu == 1650
    assert run.latencies.ttft_p99 == pytest.approx(0.08)
    assert run.latencies.itl_p99 == pytest.approx(0.01)
    assert (run.failed, run.output_tokens) == (0, 40000)
    assert run.started is not None


def test_a_median_gap_of_zero_is_read(tmp_path: Path) -> None:
    """On a busy client most chunks arrive together with others, so most gaps are 0 s."""
    run = read(tmp_path, "canary-p1.json", {**INFERENCEX, "median_itl": 0.0})
    assert run.latencies.itl_p99 == 0.01


def test_metadata_in_the_content_serves_as_well_as_the_name(tmp_path: Path) -> None:
    labels = {"arm": "stable", "isl": "1024", "osl": "1024", "tp": "1", "pair": "2"}
    run = read(tmp_path, "anything.json", {**VLLM, **labels})
    assert (run.arm, run.pair, run.tput_per_gpu) == (BenchmarkArm.STABLE, 2, 3300)


def test_older_clients_failures_are_counted(tmp_path: Path) -> None:
    old = {key: value for key, value in VLLM.items() if key != "failed"} | {"completed": 37}
    assert read(tmp_path, "canary-1k1k-tp1-p1.json", old).failed == 3


def test_inferencex_aggregates_are_read_in_seconds_and_per_gpu(tmp_path: Path) -> None:
    run = read(tmp_path, "stable-p1.json", INFERENCEX)
    assert (run.tput_per_gpu, run.latencies.ttft_p99, run.pair) == (1650, 0.08, 1)
    assert run.failed is None


def test_guidellm_reports_are_read(tmp_path: Path) -> None:
    run = read(tmp_path, "canary-8k1k-tp1-p2.json", GUIDELLM)
    assert (str(run.cell), run.tput_per_gpu, run.failed) == ("8k1k c4", 3300, 2)
    assert run.latencies.ttft_p99 == pytest.approx(0.08)
    assert run.latencies.tpot_p99 == pytest.approx(0.009)
    assert run.started == 1777000000.0


def test_a_folder_and_a_list_are_read_whole(tmp_path: Path) -> None:
    both = [{**INFERENCEX, "arm": arm} for arm in ("stable", "canary")]
    (tmp_path / "one.json").write_text(json.dumps(both), "utf-8")
    (tmp_path / "canary-2k2k-c8-tp1.json").write_text(
        json.dumps({**VLLM, "max_concurrency": 8}), "utf-8"
    )
    assert len(read_runs([tmp_path], ArmNames())) == 3


def test_arms_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "v0.33.0-rocm72-1k1k-c4-tp1-p1.json"
    path.write_text(json.dumps(VLLM), "utf-8")
    (run,) = read_runs([path], ArmNames(stable="v0.32.0", canary="v0.33.0-rocm72"))
    assert run.arm is BenchmarkArm.CANARY


@pytest.mark.parametrize(
    ("name", "document", "says"),
    [
        ("canary-1k1k-tp1-p1.json", {**VLLM, "total_token_throughput": 0}, "_throughput is 0"),
        ("canary-1k1k-tp1-p1.json", {**VLLM, "p99_ttft_ms": "fast"}, "p99_ttft_ms is fast"),
        ("canary-1k1k-tp1-p1.json", {**VLLM, "failed": 0.5}, "failed is 0.5"),
        ("canary-1k1k-tp1-p1.json", {**VLLM, "date": "May"}, "date is May"),
        ("canary-1k1k-c8-tp1-p1.json", VLLM, "conc is 4 in the content but 8 in the name"),
        ("canary-1k1k-p1.json", VLLM, "tp is missing"),
        ("canary-tp1-p1.json", VLLM, "isl is missing"),
        ("1k1k-tp1-p1.json", VLLM, "arm is missing"),
        ("canary-1k1k-tp1-p0.json", VLLM, "pair is 0"),
        ("x.json", {**INFERENCEX, "arm": "blue"}, "arm 'blue' is neither"),
        ("x.json", {**INFERENCEX, "arm": "canary", "tput_per_gpu": 10**400}, "gpu is 1000"),
        ("x.json", {"hello": 1}, "neither a result of vllm bench serve"),
        ("x.json", 3, "neither a result of vllm bench serve"),
        ("canary-1k1k-tp1-p1.json", {"benchmarks": []}, "benchmarks is empty"),
        ("canary-1k1k-tp1-p1.json", {"benchmarks": [1]}, "benchmarks[0] is no object"),
        ("canary-1k1k-tp1-p1.json", {"benchmarks": [{"config": {}}]}, "strategy is missing"),
    ],
)  # fmt: skip
def test_bad_content_is_one_line_that_names_file_and_field(
    tmp_path: Path, name: str, document: object, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, name, document)
    assert name in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rates_under_other_strategies_are_not_comparable(tmp_path: Path) -> None:
    document = json.loads(json.dumps(GUIDELLM))
    document["benchmarks"][0]["config"]["strategy"]["type_"] = "poisson"
    with pytest.raises(UsageError, match="only concurrent"):
        read(tmp_path, "canary-1k1k-c4-tp1-p1.json", document)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ', "utf-8")
    (tmp_path / "empty").mkdir()
    for place, says in (("cut.json", "not JSON"), ("none.json", "No such"), ("empty", "no *.json")):
        with pytest.raises(UsageError) as caught:
            read_runs([tmp_path / place], ArmNames())
        assert says in str(caught.value)


def test_nan_is_not_a_number_of_a_result(tmp_path: Path) -> None:
    path = tmp_path / "canary-1k1k-c4-tp1-p1.json"
    path.write_text(json.dumps({**VLLM, "total_token_throughput": float("nan")}), "utf-8")
    with pytest.raises(UsageError, match="total_token_throughput is nan"):
        read_runs([path], ArmNames())
