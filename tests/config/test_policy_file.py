from pathlib import Path
from typing import get_args

import pytest

from moe_serve.analysis.series import CellKind
from moe_serve.config.policy_file import Fact, load, load_declared, parse
from moe_serve.errors import UsageError
from moe_serve.metrics.catalogue import EXPORTER
from moe_serve.sources.declared import Declared


def test_an_empty_policy_has_the_defaults() -> None:
    found = parse({}, "p.yaml")
    assert (found.policy.margin, found.policy.primary) == (0.03, CellKind.STEP)
    assert (found.interim_analyses.first, found.interim_analyses.last) == (12, 72)


def test_a_calibration_allows_earlier_looks() -> None:
    known = {"block_variance": 1e-4, "blocks": 144, "autocorrelation": 0.1}
    assert parse({"calibration": known}, "p").interim_analyses.first == 6


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"speed": {"margn": 0.1}}, r"^p.yaml: speed.margn: unknown key; known here: primary,"),
        ({"speeed": {}}, r"^p.yaml: speeed: unknown key; known here: arms,"),
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
        ({"quality": {"items": 250}}, r"^p.yaml: quality.items: only a task has items; set q"),
        ({"quality": {"margin": 0.01}}, r"^p.yaml: quality.margin: mode identical has no such"),
        (
            {"quality": {"mode": "non-inferior", "epsilon_nats": 0.004}},
            r"^p.yaml: quality.epsilon_nats: mode non-inferior has no such bound; leave it out",
        ),
        ({"quality": {"items": 0}}, r"^p.yaml: quality.items: .*greater than or equal to 1"),
        ({"arms": {"stabel": "a"}}, r"^p.yaml: arms.stabel: unknown key; known here: label, st"),
        ({"arms": {"stable": "a", "canary": "a"}}, r"^p.yaml: arms.canary: equal to arms.stable"),
        ({"arms": {"label": "a-b"}}, r"^p.yaml: arms.label: .*pattern"),
        ({"source": {}}, r"^p.yaml: source: states none; give one of prometheus, exp"),
        (
            {"source": {"history": "a.om", "prometheus": {"url": "http://p"}}},
            r"^p.yaml: source: states prometheus and history; give one of",
        ),
        (
            {"source": {"prometheus": {"url": "http://p", "token": "s"}}},
            r"^p.yaml: source.prometheus.token: unknown key; known here: url, selector, bearer",
        ),
        ({"source": {"prometheus": {"url": "p:9090"}}}, r"^p.yaml: source.prometheus.url: "),
        (
            {"source": {"prometheus": {"url": "http://me:s3cret@p"}}},
            r"^p.yaml: source.prometheus.url: holds a user; give it in basic_auth_file$",
        ),
        (
            {
                "source": {
                    "prometheus": {
                        "url": "http://p",
                        "bearer_token_file": "t",
                        "basic_auth_file": "b",
                    }
                }
            },
            r"^p.yaml: source.prometheus.basic_auth_file: bearer_token_file is there too",
        ),
        (
            {"source": {"exporters": {"stable": ["http://a"]}}},
            r"^p.yaml: source.exporters.canary: Field required",
        ),
        ({"strata": {"batches": [True]}}, r"^p.yaml: strata.batches.0: "),
        ({"quality": {"items": True}}, r"^p.yaml: quality.items: "),
        ({"strata": {"batches": []}}, r"^p.yaml: strata.batches: .*at least 1 item"),
        ({"strata": {"batches": [8, 8]}}, r"^p.yaml: strata.batches: a batch size is there twice"),
        ({"strata": {"sizes": [8]}}, r"^p.yaml: strata.sizes: unknown key; known here: batches"),
        (
            {"strata": {"batches": [8]}, "weights": [{"batch": 8, "share": 1}]},
            r"^p.yaml: strata.batches: weights register batch sizes already",
        ),
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


def test_arms_and_source_stand_in_for_the_flags_and_paths_are_below_the_files_folder(
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.yaml"
    prometheus = "{url: 'https://p/x', selector: 'a=\"b\"', bearer_token_file: t, ca_file: /ca}"
    path.write_text(f"arms: {{label: arm, canary: new}}\nsource: {{prometheus: {prometheus}}}\n")
    found = load_declared(path)
    assert found.arms == {"arm_label": "arm", "canary_label": "new"}
    assert found.source == {
        "prometheus": "https://p/x",
        "selector": 'a="b"',
        "bearer_token_file": tmp_path / "t",
        "ca_file": Path("/ca"),
    }
    path.write_text("source: {exporters: {canary: [http://c], stable: [http://a, http://b]}}\n")
    assert load_declared(path).source == {
        "exporter": ["stable=http://a", "stable=http://b", "canary=http://c"]
    }
    path.write_text("source: {history: a.om}\n")
    assert load_declared(path).source == {"history": tmp_path / "a.om"}
    path.write_text("")
    assert load_declared(path) == Declared()


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
    assert found.settings(2, 2).alpha_high == pytest.approx(found.policy.alpha_rollback / 3)


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
        for name, metric in EXPORTER.items()
        if name.removeprefix("moe_serve_") in ("config_info", "build_info")
        for label in metric.labels
    }
    assert {*get_args(Fact)} == (told - {"rank"}) | {"model"}
