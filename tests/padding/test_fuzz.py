"""Malformed configurations, versions and flags: exit 2 and one line, never a traceback or SAFE."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_serve.cli.main import main
from tests.padding.model_configs import FP4, QUARK_W4A4, plain

# make test-fuzz asks for 20,000 of each test, 100,000 in all.
CASES = int(os.environ.get("MOE_SERVE_FUZZ_CASES", "150"))
FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

MXFP4 = {"quant_method": "mxfp4"}
VALID: list[dict[str, Any]] = [
    plain("qwen3_moe", 2048, 768, 128, 8, quantization_config=MXFP4),
    plain("gpt_oss", 2880, 2880, 32, 4, experts_key="num_local_experts",
          width_key="intermediate_size", quantization_config=MXFP4),
    plain("minimax_m3", 768, 384, 8, 4, act="swigluoai", quantization_config=QUARK_W4A4),
    {"model_type": "vl", "quantization_config": QUARK_W4A4,
     "text_config": plain("deepseek_v3", 1024, 512, 16, 8, experts_key="n_routed_experts")},
    {"d_model": 512, "quantization_config": MXFP4, "ffn_config": {
        "ffn_hidden_size": 640, "moe_num_experts": 16, "moe_top_k": 4,
        "ffn_act_fn": {"name": "silu"}}},
]  # fmt: skip
SIZE_KEYS = {
    "hidden_size", "moe_intermediate_size", "intermediate_size", "num_experts",
    "num_local_experts", "n_routed_experts", "num_experts_per_tok", "d_model", "ffn_hidden_size",
    "moe_num_experts", "moe_top_k",
}  # fmt: skip
ACTIVATION_KEYS = {"hidden_act", "ffn_act_fn"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
keys = st.sampled_from([
    *sorted(SIZE_KEYS), *sorted(ACTIVATION_KEYS), "quantization_config", "text_config",
    "ffn_config", "thinker_config", "llm_config", "model_type", "moe_latent_size", "moe_k",
    "quant_method", "global_quant_config", "layer_quant_config", "weight", "config_groups",
    "compression_config", "n_shared_experts", "mlp_only_layers", "talker_config",
])  # fmt: skip
# What no size, no activation and no quantisation can be.
nonsense = st.one_of(
    st.integers(-(2**70), 0), st.integers(10**8, 2**70), st.booleans(), st.text(max_size=6),
    st.floats(), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.lists(st.text(max_size=3), min_size=1, max_size=3), st.just([]), st.just([[1]]),
)  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """One command: its exit code and what it printed; a traceback fails the test by itself."""
    capsys.readouterr()
    code = main(["padding", *words])
    printed = capsys.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("moe-serve: ")
        assert len(printed.err) < 2000
        assert "SAFE" not in printed.out
    return code, printed.out


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def places(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [config, *(each for each in config.values() if isinstance(each, dict))]


@FUZZ
@given(data=st.data())
def test_a_configuration_with_one_impossible_value_is_refused(
    data: st.DataObject, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = json.loads(json.dumps(data.draw(st.sampled_from(VALID))))
    spots = [
        (place, key) for place in places(broken) for key in place
        if key in SIZE_KEYS | ACTIVATION_KEYS | {"quantization_config", "quant_method"}
    ]  # fmt: skip
    place, key = data.draw(st.sampled_from(spots))
    if key in ACTIVATION_KEYS and broken.get("model_type") == "gpt_oss":
        return  # GPT-OSS's own is known
    if key == "intermediate_size" and "moe_intermediate_size" in place:
        return
    place[key] = data.draw(nonsense)
    config.write_text(json.dumps(broken))

    code, _ = run(capsys, "check", "--model", str(config))

    assert code == 2, broken


@FUZZ
@given(
    base=st.sampled_from(VALID),
    change=st.dictionaries(keys, json_values, max_size=5),
    nested=st.dictionaries(keys, json_values, max_size=3),
)
def test_a_configuration_of_any_content_is_judged_only_if_it_says_mxfp4(
    base: dict[str, Any],
    change: dict[str, Any],
    nested: dict[str, Any],
    config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = {**base, **change}
    if isinstance(content.get("text_config"), dict):
        content["text_config"] = {**content["text_config"], **nested}
    config.write_text(json.dumps(content))

    code, _ = run(capsys, "check", "--model", str(config))

    says_so = json.dumps(content)
    assert code == 2 or "mxfp4" in says_so or FP4["dtype"] in says_so


@FUZZ
@given(content=st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_file_of_any_bytes_is_refused(
    content: bytes, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_bytes(content)

    for words in (("check",), ("explain",), ("table",)):
        assert run(capsys, *words, "--model", str(config))[0] == 2


version_texts = st.one_of(
    st.text(max_size=24),
    st.text(alphabet="0123456789.-+rcdevpostabg!v ", max_size=24),
    st.from_regex(
        r"\A0\.1\.[0-9]{1,3}(rc[0-9])?(\.post[0-9])?(\.dev[0-9]{1,3})?(\+g[0-9a-f]{4})?\Z"
    ),
    st.from_regex(r"\A0\.[0-9]{1,3}\.[0-9](rc[0-9])?(\.dev[0-9]{1,3})?(\+[a-z0-9]{1,6})?\Z"),
)


@FUZZ
@given(vllm=version_texts, aiter=version_texts)
def test_no_version_makes_a_traceback(
    vllm: str, aiter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--vllm={vllm}", f"--aiter={aiter}"]
    code, text = run(capsys, "check", "--model", "gpt-oss-20b", "--tp", "8", *flags)

    if "UNVERIFIED" in text or "\nunverified" in text:
        assert code == 1


flag_values = st.one_of(
    st.text(max_size=10), st.integers(-5, 10**40).map(str), st.floats().map(str),
    st.sampled_from(["gpt-oss-120b", "w4a4", "aligned", "separated", "silu", "json", "1,2"]),
)  # fmt: skip
flags = st.lists(
    st.tuples(
        st.sampled_from([
            "--model", "--hidden", "--intermediate", "--experts", "--top-k", "--tp", "--dp",
            "--vllm", "--aiter", "--quant", "--layout", "--policy", "--max-neuron-loss",
            "--ksplit", "--tuned", "--activation", "--output", "--no-such",
        ]),
        flag_values,
    ),
    max_size=6,
)  # fmt: skip


@FUZZ
@given(verb=st.sampled_from(["check", "explain", "table"]), given_flags=flags)
def test_no_flag_makes_a_traceback(
    verb: str, given_flags: Sequence[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, verb, *(f"{name}={value}" for name, value in given_flags))
