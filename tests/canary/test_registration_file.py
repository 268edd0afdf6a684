from pathlib import Path
from typing import get_args

import pytest

from moe_serve.canary.analysis.series import CellKind
from moe_serve.canary.registration_file import Fact, load, parse
from moe_serve.errors import UsageError
from moe_serve.exporter.catalogue import METRICS


def test_an_empty_policy_has_the_defaults() -> None:
    found = parse({}, "p.yaml")
    assert (found.policy.margin, found.policy.primary) == (0.03, CellKind.STEP)
    assert (found.looks.first, found.looks.last) == (12, 72)


def test_a_calibration_allows_earlier_looks() -> None:
    known = {"block_variance": 1e-4, "blocks": 144, "autocorrelation": 0.1}
    assert parse({"calibration": known}, "p").looks.first == 6


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"speed": {"margn": 0.1}}, r"^p.yaml: speed.margn: unknown key; known here: primary,"),
        ({"speeed": {}}, r"^p.yaml: speeed: unknown key; known here: speed,"),
        ({"speed": {"margin": "fast"}}, r"^p.yaml: speed.margin: .*number"),
        ({"speed": {"margin": float("nan")}}, r"^p.yaml: speed.margin:"),
        ({"speed": {"primary": "tokens"}}, r"^p.yaml: speed.primary: .*'kernel' or 'step'"),
        ({"calibration": {"blocks": 3}}, r"^p.yaml: calibration\..* \(and \d more\)"),
        ({"deadline_hours": 1}, r"cannot be decided: 12 blocks"),
        ({"guards": {"ttft": {}}}, r"^p.yaml: guards.ttft.margin: Field required"),
        (
            {"guards": {"tpot": {"margin": 0.1}}},
            r"^p.yaml: guards.tpot: unknown key; known here: t",
        ),
        ({"guards": {"errors": {"margin": 0}}}, r"^p.yaml: guards.errors.margin: .*greater than 0"),
        (
            {"weights": [{"batch": 8, "share": 1, "batches": 8}]},
            r"^p.yaml: weights.0.batches: unknown key; known here: batch, share, layer",
        ),
        ({"weights": [{"batch": 8, "share": 0.5}]}, r"^p.yaml: weights: the shares sum to 0.5"),
        ({"weights": [{"batch": 8, "share": 0.5}] * 2}, r"weights: a batch size .* there twice"),
        ({"weights": [{"batch": 8, "share": 1, "layer": 0}]}, r"weights: a kernel's weight needs"),
        ([], r"^p.yaml: document: must be a mapping"),
        ({"speed": []}, r"^p.yaml: speed: must be a mapping \(key: value\)$"),
        ({"guards": {"ttft": {"margn": 1}}}, r"^p.yaml: guards.ttft.margn: unknown key; known h"),
        (
            {"validity": {"under_test": ["polciy"]}},
            r"^p.yaml: validity.under_test.0: .*'policy', 'path'",
        ),
        (
            {"blocks": {"seconds": 10, "window_seconds": 600}},
            r"^p.yaml: blocks: blocks of 10 s are not made of whole windows of 600 s",
        ),
        ({"blocks": {"seconds": 600, "window_seconds": 45}}, r"a multiple of window_seconds"),
        ({"design": "crossover"}, r"^p.yaml: spread.start_sd: a crossover takes out"),
        (
            {"design": "crossover", "spread": {"start_sd": 0}},
            r"^p.yaml: spread.start_sd: .*above 0",
        ),
    ],
)
def test_a_mistake_is_named_with_its_path(document: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(document, "p.yaml")


def test_guards_and_weights_are_registered() -> None:
    found = parse(
        {
            "guards": {"ttft": {"margin": 0.1, "quantile": 0.95}, "errors": {"margin": 0.001}},
            "weights": [{"batch": 8, "share": 0.25}, {"batch": 64, "share": 0.75}],
        },
        "p",
    )
    assert [guard.name for guard in found.guards] == ["ttft_p95", "errors"]
    assert found.weights is not None
    assert sorted(found.weights.values()) == [0.25, 0.75]
    assert found.terms(2, 2).alpha_high == pytest.approx(found.policy.alpha_rollback / 3)


def test_the_shipped_policy_is_valid() -> None:
    path = Path(__file__).parents[2] / "deploy/canary/policy.yaml"
    assert len(load(path).guards) == 4


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("a: [")
    with pytest.raises(UsageError, match=r"p.yaml: not YAML") as error:
        load(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guards: {errors: {margin: 0.1}}\nguards: {}\n", r"line 2: guards is there already, in l"),
        ("speed:\n  margin: 0.1\n  margin: 0.2\n", r"line 3: speed.margin is there .* line 2$"),
        ("weights: [{batch: 8, share: 1, batch: 4}]", r"line 1: weights.0.batch is there already"),
        ("speed: 2026-02-31\n", "not YAML: day is out of range"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_what_yaml_would_pass_over_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_the_facts_under_test_are_those_that_the_exporter_tells() -> None:
    told = {
        label
        for name, metric in METRICS.items()
        if name.removeprefix("moe_serve_") in ("config_info", "build_info")
        for label in metric.labels
    }
    assert {*get_args(Fact)} == (told - {"rank"}) | {"model"}
