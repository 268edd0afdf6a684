"""`moe-serve padding`, as its user meets it."""

import json
import re
from pathlib import Path

import pytest

from moe_serve.cli.main import main
from tests.padding.model_configs import SIZES

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
        "assumption": prefill["assumption"],
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


def check(*flags: str) -> int:
    return main(["padding", "check", *flags])


GPT_OSS_8 = ("--model", "gpt-oss-120b", "--tp", "8")


@pytest.mark.parametrize("policy", ["upstream", "zero", "raw", "rounded", "aligned"])
def test_gelu_after_a_split_is_unsafe_under_every_policy(
    policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (*GPT_OSS_8, "--vllm", "0.22.1", "--aiter", "0.1.13", "--policy", policy)

    assert check(*flags) == 1
    assert "split-k-gelu" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_the_declared_workaround_makes_it_safe(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*GPT_OSS_8, "--vllm", "0.22.1", "--aiter", "0.1.13"]
    if how == "environment":
        monkeypatch.setenv("AITER_KSPLIT", "1")
    else:
        flags += ["--ksplit", "1"]

    assert check(*flags) == 0


def test_silu_from_0_28_on_is_loaded_in_multiples_of_128(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = ("--hidden", "4096", "--intermediate", "3072", "--experts", "128", "--top-k", "8")

    assert check(*sizes, "--tp", "8", "--activation", "silu", "--vllm", "0.29.0") == 1
    text = capsys.readouterr().out
    assert "loaded as 4096 x 384" in text
    assert "scale-groups-misaligned" in text
    assert check(*sizes, "--tp", "8", "--activation", "silu", "--vllm", "0.27.1") == 0


def test_w4a4_silu_is_read_rightly_by_aiter_before_0_1_14() -> None:
    sizes = ("--hidden", "7168", "--intermediate", "2048", "--experts", "256", "--top-k", "8")
    software = ("--quant", "w4a4", "--tp", "8", "--vllm", "0.22.1", "--aiter", "0.1.13")

    assert check(*sizes, *software, "--activation", "silu", "--policy", "raw") == 0


def test_w4a4_swiglu_before_0_1_14_is_told_to_take_a_newer_aiter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = ("--hidden", "6144", "--intermediate", "3072", "--experts", "128", "--top-k", "4")
    software = ("--quant", "w4a4", "--tp", "8", "--vllm", "0.22.1", "--aiter", "0.1.13.post1")

    assert check(*sizes, *software) == 1
    assert "use AITER 0.1.14 or newer with vLLM 0.24" in capsys.readouterr().out


def test_a_hidden_pad_below_128_is_none_to_a_split() -> None:
    sizes = ("--hidden", "3008", "--intermediate", "3072", "--experts", "128", "--top-k", "4")

    assert check(*sizes, "--vllm", "0.21.0", "--aiter", "0.1.13.post1", "--policy", "raw") == 0


def test_no_share_of_a_loss_is_above_all_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--hidden", "2688", "--intermediate", "32", "--experts", "16", "--top-k", "5")
    software = ("--vllm", "0.24.0", "--aiter", "0.1.16.post6", "--layout", "separated")

    assert check(*sizes, *software, "--policy", "rounded") == 1
    text = capsys.readouterr().out
    assert "32 of 32 live up rows (100.0%)" in text
    assert not re.search(r"\(\d{4,}\.|\([2-9]\d\d\.|\(1[1-9]\d\.|\(10[1-9]\.", text)


def test_the_table_tells_skipped_w2_rows_and_how_many_variants_a_row_stands_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    check("--model", "gpt-oss-120b", "--vllm", "0.24.0", "--aiter", "0.1.13.post1")

    text = capsys.readouterr().out
    assert text.startswith("model       gpt-oss-120b\n")
    decode = next(line for line in text.splitlines() if line.startswith("cktile"))
    assert "a8w4 kernel skips columns as the a16w4 one does is assumed" not in text  # FlyDSL
    assert decode.split()[2:5] == ["0/192", "192/0", "64"]
    assert decode.endswith("worst of 3 variants")


@pytest.mark.parametrize(
    ("aiter", "code"),
    [
        ("0.1.1.dev50+g6214264b1", 1),
        ("0.1.1.dev1+gb4d9154d1.d20260923", 1),
        ("0.1.14rc1.dev264+g2e93b80ab.d20260611", 1),
        ("0.1.10.post4.dev14+g54974b315", 1),
        ("0.1.20+rocm10.1.0a20260819.3135022", 0),
        ("0.1.23+rocm7.2.3.76cd9af.d20260914", 1),
        ("0.1.12.post1+rocm7.2.1", 1),
        ("0.1.13-rc5", 1),
        ("v0.1.24.post1", 1),
        ("0.1.0rc1", 2),
        ("0.1.7.post2.dev18", 1),
        ("abc1234", 2),
    ],
)
def test_aiter_as_real_installs_have_it(aiter: str, code: int) -> None:
    assert check(*GPT_OSS_8, "--vllm", "0.32.0", "--aiter", aiter) == code


@pytest.mark.parametrize(
    ("vllm", "code"),
    [
        ("0.22.1rc1.dev491+g1033ffac2", 1),
        ("0.21.1rc1.dev339", 1),
        ("v0.30.1rc1.dev301+g3a2bf16da", 1),
        ("0.28.1rc1.dev681+ge7edf17ce.xpu", 1),
        ("0.19.1rc1.dev329+gc0ba4f5ba.precompiled", 1),
        ("0.26.0+rhaiv.5", 0),
        ("0.1.0rc2.dev9+g9255fd9fb9.rocm100", 1),
        ("nightly-9e57de7197f234f9d9187715d96e07e007048c0f", 1),
        ("0.33.0", 0),
        ("0.34.0", 1),
        ("0.33.1rc1.dev20+gabcdef0", 1),
        ("0.9.2.dev364+gb432b7a28.rocm700", 1),
        ("0.33.0-rocm72", 2),
        ("dev", 2),
    ],
)
def test_vllm_as_real_installs_have_it(vllm: str, code: int) -> None:
    software = ("--vllm", vllm, "--aiter", "0.1.20.post1", "--policy", "upstream")

    assert check(*GPT_OSS_8, *software) == code


def test_allow_unverified_lifts_the_doubt_and_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    newer = (*GPT_OSS_8, "--vllm", "0.33.0", "--aiter", "0.1.26")

    assert (check(*newer), check(*newer, "--allow-unverified")) == (1, 0)
    text = capsys.readouterr().out
    assert "UNVERIFIED" in text
    assert "AITER 0.1.26 is newer than 0.1.20.post1" in text
    losing = ("--model", "gpt-oss-120b", "--aiter", "0.1.26", "--policy", "rounded")
    assert check(*losing, "--allow-unverified") == 1


def test_json_names_the_model_and_the_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    check("--model", "openai/gpt-oss-20b", "--aiter", "0.1.26", "--output", "json")

    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["answer"]) == ("openai/gpt-oss-20b", "unverified")
    assert (report["safe"], report["verified"], len(report["unverified"])) == (True, False, 1)


def test_a_bare_check_fails_and_asks_for_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert check() == 2
    assert "no model is named" in capsys.readouterr().err


def test_experts_of_two_sizes_are_both_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = SIZES["baidu/ERNIE-4.5-VL-28B-A3B"]
    path = tmp_path / "ernie.json"
    path.write_text(json.dumps(config))

    check("--model", str(path), "--quant", "w4a16", "--tp", "4")

    assert "the worst of 2 that are possible" in capsys.readouterr().out


TUNED = "cu_num,token,model_dim,inter_dim,expert,topk,ksplit,kernelName1,kernelName2\n"


@pytest.mark.parametrize(
    ("row", "code", "named"),
    [
        ("256,16,3072,512,128,4,0,opus_moe1_x,opus_moe2_x", 0, "opus"),
        ("256,16,3072,512,128,4,2,cktile_a,cktile_b", 0, "worst of 2 variants"),
        ("256,16,3072,512,128,4,0,brand_new_kernel,", 1, "kernels that are not known"),
        ("256,16,7168,512,256,8,0,brand_new_kernel,", 0, "SAFE"),
    ],
)
def test_a_sites_own_tables_add_their_paths(
    row: str, code: int, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tuned_fmoe.csv"
    path.write_text(TUNED + row + "\n")

    assert check(*GPT_OSS_8, "--tuned", str(path)) == code
    assert named in capsys.readouterr().out


@pytest.mark.parametrize("content", ["a,b\n1,2\n", TUNED + "1,2,x,4,5,6,7,8,9\n", "\x00\xff"])
def test_a_table_that_cannot_be_read_makes_every_path_possible(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tuned_fmoe.csv"
    path.write_text(content, encoding="latin-1")

    assert check(*GPT_OSS_8, "--tuned", str(path)) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_a_switch_of_aiters_kernels_is_unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AITER_FLYDSL_FORCE", "0")

    assert check(*GPT_OSS_8) == 1


@pytest.mark.parametrize("output", ["text", "json", "markdown"])
def test_the_fleets_table_has_a_row_for_each_choice(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    software = ["--vllm", "0.22.1,0.33.0", "--aiter", "0.1.13,0.1.26", "--ep", "8"]
    code = main(
        ["padding", "table", "--model", "gpt-oss-120b", "--tp", "1,7", *software,
         "--policy", "raw,aligned", "--output", output]
    )  # fmt: skip

    text = capsys.readouterr().out
    assert code == 0
    if output == "json":
        rows = json.loads(text)["rows"]
        assert len(rows) == 2 * 2 * 3 * 2
        assert {row["answer"] for row in rows if row["vllm"] == "0.33.0"} >= {"unverified"}
        return
    assert text.count("TP 1") == 8
    assert "do not divide" in text
    assert "split-k-gelu" in text


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tp", "0"], "--tp"),
        (["--tp", "1,,2"], "--tp"),
        (["--tp", ""], "no size is given"),
        (["--vllm", "0.33.0,x"], "'x'"),
        (["--policy", "fast"], "'fast'"),
        (["--model", "no-such"], "no-such"),
        (["--tp", ",".join(map(str, range(1, 4200)))], "rows"),
    ],
)
def test_a_table_that_cannot_be_made_is_one_line(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--model" in flags else ["--model", "gpt-oss-120b"]

    assert main(["padding", "table", *model, *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error


def test_what_the_source_does_not_show_is_labelled(capsys: pytest.CaptureFixture[str]) -> None:
    check(*GPT_OSS_8)

    assert "cktile prefill: that its a8w4 kernel skips columns" in capsys.readouterr().out
