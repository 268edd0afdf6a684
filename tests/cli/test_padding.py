"""`moe-serve padding`, as its user meets it."""

import json
from pathlib import Path

import pytest

from moe_serve.cli.main import main

CHECK_0_22 = ["padding", "check", "--model", "gpt-oss-120b", "--tp", "8", "--vllm", "0.22.1"]
CHECK_0_22 += ["--aiter", "0.1.13.post1"]


def test_the_build_that_lost_21_points_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*CHECK_0_22, "--policy", "upstream"])

    assert code == 1
    assert "104 of 360 live neurons (28.9%)" in capsys.readouterr().out


def test_the_same_deployment_with_aligned_pads_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*CHECK_0_22, "--policy", "aligned"])

    assert code == 0
    assert "SAFE: no live weight is lost" in capsys.readouterr().out


def test_explain_reports_an_unsafe_policy_without_failing() -> None:
    assert main(["padding", "explain", "--model", "gpt-oss-20b", "--policy", "rounded"]) == 0


def test_json_names_every_field_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    main([*CHECK_0_22, "--policy", "upstream", "--output", "json"])

    report = json.loads(capsys.readouterr().out)
    assert report["raw"] == {"hidden": 192, "intermediate": 152}
    assert report["sent"] == {"hidden": 128, "intermediate": 256}
    assert report["safe"] is False
    assert {violation["id"] for violation in report["violations"]} == {
        "live-weights-lost",
        "split-k-hidden-pad",
        "fewer-bytes-than-live",
        "pad-exceeds-raw",
    }
    prefill = next(path for path in report["paths"] if path["phase"] == "prefill")
    del prefill["violations"]
    assert prefill == {
        "path": "cktile",
        "phase": "prefill",
        "variants": 1,
        "raw": {"hidden": 192, "intermediate": 152},
        "sent": {"hidden": 128, "intermediate": 256},
        "effective": {"hidden": 128, "intermediate": 256},
        "skipped_w2_rows": 128,
        "lost": {"stage1_neurons": 104, "stage1_k": 0, "stage2_n": 0, "stage2_k": 104},
        "uninitialised_neurons": 0,
        "bytes_ratio": pytest.approx(0.7269, abs=1e-4),
        "safe": False,
    }


def test_any_model_from_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "hidden_act": "silu",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    flags = ["--quant", "w4a16", "--tp", "2", "--vllm", "0.27.1"]
    code = main(["padding", "check", "--model", str(tmp_path), *flags])

    assert code == 0
    assert "2048 hidden x 384 neurons, 128 experts, loaded as 2048 x 512" in capsys.readouterr().out


def test_sizes_by_flags() -> None:
    sizes = ["--hidden", "2880", "--intermediate", "2880", "--experts", "32", "--top-k", "4"]

    assert main(["padding", "check", *sizes]) == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tp", "7"], ["--tp 7", "2880", "divide"]),
        (["--tp", "0"], ["--tp", "'0'", "1 or more"]),
        (["--tp", "two"], ["--tp", "'two'", "1 or more"]),
        (["--dp", "-1"], ["--dp", "'-1'", "1 or more"]),
        (["--ep", "--tp", "3"], ["--ep", "128 experts", "3 ranks"]),
        (["--policy", "fast"], ["--policy", "'fast'", "aligned"]),
        (["--vllm", "0.20.0"], ["--vllm", "0.20.0", "0.21.0"]),
        (["--vllm", "latest"], ["--vllm", "'latest'", "0.32.0"]),
        (["--aiter", "0.1.11"], ["--aiter", "0.1.11", "0.1.12"]),
        (["--hidden", "2880"], ["--intermediate, --experts, --top-k", "missing"]),
        (["--model", "gpt-oss-20b", "--hidden", "64"], ["--model gpt-oss-20b", "--hidden"]),
        (["--model", "no-such-model"], ["--model no-such-model", "gpt-oss-120b", "config.json"]),
        (["--max-neuron-loss", "7"], ["--max-neuron-loss", "'7'", "0 to 1"]),
        (["--quant", "w4a8", "--layout", "separated"], ["--layout separated", "w4a8"]),
        (["--quant", "w4a4", "--layout", "interleave"], ["--layout interleave", "w4a4"]),
        (["--no-such-flag"], ["--no-such-flag"]),
        (["--model", ""], ["--model", "no model is named"]),
        (["--aiter", "abc1234"], ["--aiter", "'abc1234'", "not a version"]),
        (["--aiter", "0.1.0rc1"], ["--aiter", "0.1.0rc1", "older than 0.1.12"]),
        (["--vllm", "0.33.0-rocm72"], ["--vllm", "'0.33.0-rocm72'", "pip show"]),
        (["--vllm", "dev"], ["--vllm", "'dev'"]),
        (["--ksplit", "two"], ["--ksplit", "'two'"]),
        (["--ksplit", "9999"], ["--ksplit", "'9999'"]),
        (["--tuned", "no-such.csv"], ["--tuned no-such.csv"]),
        (["--tp", "9" * 30], ["--tp", "9999"]),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    flags: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if {"--model", "--hidden"} & set(flags) else ["--model", "gpt-oss-120b"]
    code = main(["padding", "check", *model, *flags])

    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert [word for word in named if word not in error] == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", ["is not JSON"]),
        ("[]", ["does not hold a JSON object"]),
        ('{"hidden_size": 64}', ["moe_intermediate_size", "not known", "--intermediate"]),
        (
            '{"hidden_size": -1, "intermediate_size": 8, "num_experts": 2, "top_k": 1}',
            ["hidden_size is -1"],
        ),
        ("\x00\xff", ["is not JSON"]),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(
    content: str, named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="latin-1")

    code = main(["padding", "check", "--model", str(path)])

    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert [word for word in [str(path), *named] if word not in error] == []
