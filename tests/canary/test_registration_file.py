from pathlib import Path

import pytest

from moe_serve.canary.analysis.series import CellKind
from moe_serve.canary.registration_file import load, parse
from moe_serve.errors import UsageError


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
        ([], r"^p.yaml: document:"),
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
