"""Real models' configurations: each judged by its own sizes, or refused by name."""

import json
from pathlib import Path

import pytest

from moe_serve.cli.main import main
from moe_serve.errors import UsageError
from moe_serve.padding.models import ModelFacts, built_in, read_config
from moe_serve.padding.shapes import Quant
from tests.padding.model_configs import (
    COMPRESSED_MXFP4,
    PUBLISHED,
    QUARK_MIXED,
    QUARK_W4A4,
    QUARK_W4A8,
    QUARK_W4A16,
    SIZES,
    Config,
    Sizes,
    plain,
)


def sizes(facts: ModelFacts) -> tuple[Sizes, ...]:
    return tuple(
        Sizes(d.hidden, d.intermediate, d.experts, d.top_k, d.activation.value) for d in facts.dims
    )


def test_the_table_has_sixty_models() -> None:
    assert len({*PUBLISHED, *SIZES}) >= 60


@pytest.mark.parametrize("name", SIZES)
def test_experts_sizes_are_the_models_own(name: str) -> None:
    config, expected = SIZES[name]
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            read_config(config, source=name, quant=Quant.W4A16)
        return
    wanted = (expected,) if isinstance(expected, Sizes) else expected
    assert sizes(read_config(config, source=name, quant=Quant.W4A16)) == wanted


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_judged_or_refused_by_name(name: str) -> None:
    config, expected = PUBLISHED[name]
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected) as refused:
            read_config(config, source=name)
        assert "--quant" in str(refused.value)
        assert "not an MoE" not in str(refused.value)
        return
    assert isinstance(expected, Sizes)
    assert sizes(read_config(config, source=name)) == (expected,)


@pytest.mark.parametrize(
    ("quantization", "scheme"),
    [
        (QUARK_W4A4, Quant.W4A4),
        (QUARK_W4A8, Quant.W4A8),
        (QUARK_W4A16, Quant.W4A16),
        (QUARK_MIXED, Quant.W4A4),
        (COMPRESSED_MXFP4, Quant.W4A16),
        ({"quant_method": "mxfp4"}, Quant.W4A16),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_scheme_is_read_wherever_it_stands(
    quantization: Config, scheme: Quant, nested: bool
) -> None:
    config = plain("qwen3_moe", 2048, 768, 128, 8, quantization_config=quantization)
    whole = {"model_type": "a_vl_model", "text_config": config} if nested else config

    assert read_config(whole, source="here").quantization.scheme is scheme


def test_shared_experts_dense_layers_and_other_experts_are_said() -> None:
    config, _ = PUBLISHED["amd/DeepSeek-R1-0528-MXFP4"]
    omni, _ = SIZES["Qwen/Qwen3-Omni-30B-A3B"]
    kimi, _ = SIZES["moonshotai/Kimi-K3"]
    notes = " ".join(
        note
        for each in (config, omni, kimi)
        for note in read_config(each, source="here", quant=Quant.W4A16).notes
    )

    for said in ("n_shared_experts 1", "first_k_dense_replace 3", "talker_config.text_config"):
        assert said in notes
    assert "the experts are 3584 wide, the model 7168" in notes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_experts": 0}, "num_experts is 0"),
        ({"num_experts": True}, "num_experts is True"),
        ({"num_experts": 1.5}, "num_experts is 1.5"),
        ({"num_experts": "128"}, "num_experts is '128'"),
        ({"num_experts": []}, "num_experts is"),
        ({"num_experts": [64, "x"]}, "num_experts is"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000"),
        ({"hidden_size": [1, 2]}, "hidden sizes differ: 1, 2"),
        ({"hidden_act": None}, "no hidden_act"),
        ({"hidden_act": 7}, "hidden_act is '7'"),
        ({"num_experts_per_tok": 200}, "more than its 128 experts"),
        ({"moe_intermediate_size": [1, 2, 3], "num_experts": [4, 8]}, "different lengths"),
        ({"moe_intermediate_size": list(range(1, 30))}, "29 different sizes"),
    ],
)
def test_a_value_that_cannot_be_is_named(change: Config, named: str) -> None:
    config = plain("qwen3_moe", 2048, 768, 128, 8) | change

    with pytest.raises(UsageError, match=named):
        read_config(config, source="here", quant=Quant.W4A16)


@pytest.mark.parametrize("name", ["gpt-oss-120b", "openai/gpt-oss-120b"])
def test_gpt_oss_is_known_with_and_without_its_owner(name: str) -> None:
    facts = built_in(name)

    assert facts is not None
    assert (facts.name, facts.quantization.scheme) == (name, Quant.W4A16)


@pytest.mark.parametrize("where", ["folder", "file", "hub"])
def test_a_configuration_is_found_by_folder_file_and_hub_name(
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, _ = PUBLISHED["amd/DeepSeek-R1-0528-MXFP4"]
    paths = {
        "folder": tmp_path / "config.json",
        "file": tmp_path / "deepseek.of-any-name",
        "hub": tmp_path / "models--amd--R1-MXFP4" / "snapshots" / "abc" / "config.json",
    }
    paths[where].parent.mkdir(parents=True, exist_ok=True)
    paths[where].write_text(json.dumps(config))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    names = {"folder": str(tmp_path), "file": str(paths["file"]), "hub": "amd/R1-MXFP4"}

    code = main(["padding", "check", "--model", names[where], "--tp", "8", "--output", "json"])

    report = json.loads(capsys.readouterr().out)
    assert (code, report["model"], report["quant"]) == (0, names[where], "w4a4")
    assert report["rank"]["intermediate"] == 256
