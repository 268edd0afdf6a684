"""Every rule, by promtool: what fires, what does not, what no data does, and figures by hand."""

from pathlib import Path
from typing import Any

import pytest

from moe_serve.metrics.catalogue import EXPORTER, JUDGE, ROLLOUT, MetricType
from tests.monitoring.cases import CASES, Case, kernels
from tests.monitoring.rules import (
    FILES,
    ROOT,
    RULES,
    VLLM,
    Series,
    alerts,
    inputs,
    raw_names,
    rule_names,
    rules,
    run,
    run_rules,
)  # fmt: skip

pytestmark = pytest.mark.monitoring


def test_promtool_finds_no_fault() -> None:
    found = run("check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES))

    assert found.returncode == 0, found.stdout + found.stderr


def test_promtool_takes_the_example_of_a_configuration() -> None:
    found = run("check", "config", str(RULES.parent / "prometheus.yaml"))

    assert found.returncode == 0, found.stdout + found.stderr


def test_every_metric_that_a_rule_reads_exists() -> None:
    scraped = set(VLLM)
    for metric in [*EXPORTER.values(), *JUDGE.values(), *ROLLOUT.values()]:
        ends = ("_bucket", "_sum", "_count") if metric.type is MetricType.HISTOGRAM else ("",)
        scraped |= {metric.name + end for end in ends}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        read = {name for name in raw_names(rule["expr"]) if not name.startswith("amd_")}
        assert read <= scraped, rule
        assert rule_names(rule["expr"]) <= recorded, rule


def test_every_alert_has_its_cases_and_its_page() -> None:
    assert set(CASES) == set(alerts())
    for name, alert in alerts().items():
        page = ROOT / alert["annotations"]["runbook_url"]
        assert page.name == f"{name}.md"
        assert f"# {name}\n" in page.read_text("utf-8")
        assert alert["labels"]["severity"] in ("critical", "warning")
    assert {path.stem for path in (ROOT / "docs/runbooks").glob("Moe*.md")} == set(alerts())


@pytest.mark.parametrize("name", CASES)
def test_it_fires(name: str, tmp_path: Path) -> None:
    found = run_rules(tmp_path, expectation(name, CASES[name], CASES[name].fires, fires=True))

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", CASES)
def test_it_does_not_fire(name: str, tmp_path: Path) -> None:
    found = run_rules(tmp_path, expectation(name, CASES[name], CASES[name].silent, fires=False))

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", CASES)
def test_no_data_fires_nothing(name: str, tmp_path: Path) -> None:
    found = run_rules(tmp_path, expectation(name, CASES[name], {"up": "1x200"}, fires=False))

    assert found.returncode == 0, found.stdout + found.stderr


def expectation(name: str, case: Case, series: Series, *, fires: bool) -> dict[str, Any]:
    labels = {"__name__": "ALERTS", "alertname": name, "alertstate": "firing"}
    labels |= {**alerts()[name]["labels"], **case.labels}
    text = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {
        "input_series": inputs(series),
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{name}", alertstate="firing"}}',
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": f"{{{text}}}", "value": 1}] if fires else [],
            }
        ],
    }


def value(folder: Path, series: Series, expression: str, labels: str, expected: float) -> None:
    found = run_rules(
        folder,
        {
            "input_series": inputs(series),
            "promql_expr_test": [
                {
                    "expr": f"round({expression}, 1e-6)",
                    "eval_time": "30m",
                    "exp_samples": [{"labels": labels, "value": expected}],
                }
            ],
        },
    )
    assert found.returncode == 0, found.stdout + found.stderr


# The canary is 8 % faster at both sizes, but meets mostly the larger one.
MIX = {
    **kernels("stable", "8", calls=900, mean=1.08e-4),
    **kernels("stable", "256", calls=100, mean=5.40e-4),
    **kernels("canary", "8", calls=10, mean=1.00e-4),
    **kernels("canary", "256", calls=90, mean=5.00e-4),
}


def test_the_speed_up_is_of_equal_mixes(tmp_path: Path) -> None:
    labels = '{namespace="llm", model="gpt", over="stable"}'

    value(tmp_path, MIX, "canary:moe_serve_kernel_speedup:ratio5m", labels, 1.08)
    value(tmp_path, MIX, "canary:moe_serve_kernel_speedup_equal_weights:ratio5m", labels, 1.08)
    raw = (
        'sum(track:moe_serve_kernel_seconds:rate5m{track="stable"}) / 1000'
        ' / (sum(track:moe_serve_kernel_seconds:rate5m{track="canary"}) / 100)'
    )
    value(tmp_path, MIX, raw, "{}", 0.328696)  # the raw mean: three times slower


def test_a_size_that_only_one_arm_ran_weighs_nothing(tmp_path: Path) -> None:
    series = {**MIX, **kernels("canary", "512", calls=50, mean=9.0)}
    labels = '{namespace="llm", model="gpt", over="stable"}'

    value(tmp_path, series, "canary:moe_serve_kernel_speedup:ratio5m", labels, 1.08)


def test_a_fresh_baseline_is_compared_apart(tmp_path: Path) -> None:
    series = {**MIX, **kernels("baseline", "8", calls=10, mean=1.20e-4)}
    over = 'canary:moe_serve_kernel_speedup:ratio5m{over="baseline"}'

    value(tmp_path, series, over, '{namespace="llm", model="gpt", over="baseline"}', 1.2)


def test_the_share_of_moe_predicts_the_windows_gain(tmp_path: Path) -> None:
    stable = 'namespace="llm", pod="s", model="gpt", track="stable", rank="dp0-pp0-tp0"'
    cell = 'bucket="64", mode="full", phase="decode"'
    series = {
        **kernels("stable", "64", calls=100, mean=1.08e-4),
        **kernels("canary", "64", calls=100, mean=1.00e-4),
        f"moe_serve_forward_window_seconds_total{{{stable}, {cell}}}": "0+0.7776x200",
        f"moe_serve_moe_layers{{{stable}}}": "36x200",
        f"moe_serve_instrumented_layers{{{stable}}}": "1x200",
    }
    share = 0.0108 * 36 / 0.7776  # a half
    predicted = 1 / (1 - share + share / 1.08)
    labels = '{namespace="llm", model="gpt", over="stable"}'

    value(tmp_path, series, "canary:moe_serve_window_speedup_predicted:ratio5m", labels,
          round(predicted, 6))  # fmt: skip
