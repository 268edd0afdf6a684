"""The whole table, over a node's files and an environment: what fails, and what it asks for."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from moe_serve.cli.main import main
from moe_serve.padding.shapes import Parallelism
from moe_serve.preflight import folders
from moe_serve.preflight.checks import PreflightCheck, PreflightOutcome, all_pass, skip
from moe_serve.preflight.folders import check_folders, check_shm, check_vocabulary, read_folders
from moe_serve.preflight.models import find_model
from moe_serve.preflight.pod import Pod, check_pod
from moe_serve.preflight.software import Software
from moe_serve.vllm_plugin.settings import from_environment
from tests.preflight.nodes import Card, node

SOFTWARE = Software(vllm="0.32.0", aiter="0.1.24.post1", plugin=True)
GIB = 2**30
AITER_ON = {"VLLM_ROCM_USE_AITER": "1"}


def table(
    root: Path,
    *cards: Card,
    environment: Mapping[str, str] = AITER_ON,
    software: Software = SOFTWARE,
    model: str | None = "openai/gpt-oss-120b",
    tp: int = 1,
    gpu: bool = True,
) -> dict[str, PreflightCheck]:
    variables = {name: str(root / name) for name in (*folders.CACHES, "MOE_SERVE_RECORD_DIR")}
    variables |= environment
    pod = Pod(
        gpu=gpu,
        parallel=Parallelism(tp=tp),
        model=find_model(model, variables) if model else None,
        software=software,
        settings=from_environment(variables),
        environment=variables,
        root=node(root, *cards),
        run_tool=lambda command: "",
    )
    return {check.name: check for check in check_pod(pod)}


@pytest.fixture
def words(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vocabulary of two tokens, and its own checksum for the real one's."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / folders.VOCABULARY_FILE).write_bytes(b"IQ== 0\nIg== 1\n")
    digest = hashlib.sha256(b"IQ== 0\nIg== 1\n").hexdigest()
    monkeypatch.setattr(folders, "VOCABULARY_SHA256", digest)
    return str(folder)


def test_a_good_pod_passes_whole(tmp_path: Path, words: str) -> None:
    found = table(tmp_path, Card(), environment={**AITER_ON, "TIKTOKEN_ENCODINGS_BASE": words})

    assert [name for name, check in found.items() if check.outcome is not PreflightOutcome.OK] == []
    assert found["pads"].detail.startswith("pads 192/192 of 192/192 sent (policy aligned)")


def test_without_a_gpu_every_gpu_check_says_that_it_was_left_out(
    tmp_path: Path, words: str
) -> None:
    found = table(
        tmp_path,
        gpu=False,
        environment={"TIKTOKEN_ENCODINGS_BASE": words},
        software=Software(vllm="0.32.0", aiter=None, plugin=True),
    )

    left_out = {name for name, check in found.items() if check.outcome is PreflightOutcome.SKIP}
    assert left_out == {
        "devices", "gpu", "partition", "vram", "firmware", "aiter", "aiter on", "known-bad",
    }  # fmt: skip
    assert all_pass(list(found.values()))


@pytest.mark.parametrize(
    ("environment", "name", "says"),
    [
        ({}, "aiter on", "VLLM_ROCM_USE_AITER is not set"),
        ({**AITER_ON, "VLLM_PLUGINS": "other"}, "plugin", "VLLM_PLUGINS leaves moe_serve out"),
        ({**AITER_ON, "VLLM_PLUGINS": ""}, "plugin", "VLLM_PLUGINS leaves moe_serve out"),
        ({**AITER_ON, "MOE_SERVE_PADDING": "upstream"}, "pads", "192 of 2880 neurons lost"),
        (AITER_ON, "vocabulary", "TIKTOKEN_ENCODINGS_BASE is not set"),
        ({**AITER_ON, "HOME": ""}, "HOME", "set HOME"),
    ],
)
def test_each_lack_in_the_environment_says_what_to_do(
    environment: Mapping[str, str], name: str, says: str, tmp_path: Path
) -> None:
    check = table(tmp_path, Card(), environment=environment)[name]

    assert check.outcome is PreflightOutcome.FAIL
    assert says in check.detail


@pytest.mark.parametrize(
    ("software", "name", "says"),
    [
        (Software(vllm=None, aiter="0.1.24", plugin=True), "vllm", "serving image"),
        (Software(vllm=None, aiter="0.1.24", plugin=True), "pads", "serving image"),
        (Software(vllm="0.20.2", aiter="0.1.24", plugin=True), "pads", "older than 0.21.0"),
        (Software(vllm="0.32.0", aiter=None, plugin=True), "aiter", "amd-aiter"),
        (Software(vllm="0.32.0", aiter="0.1.24", plugin=False), "plugin", "beside vLLM"),
        (Software(vllm="0.23.0", aiter="0.1.13.post1", plugin=True), "known-bad", "0.24 or newer"),
    ],
)
def test_each_lack_in_the_software_says_what_to_do(
    software: Software, name: str, says: str, tmp_path: Path
) -> None:
    check = table(tmp_path, Card(), software=software)[name]

    assert check.outcome is PreflightOutcome.FAIL
    assert says in check.detail


def test_a_declared_loss_passes_and_is_told(tmp_path: Path) -> None:
    allowed = {"MOE_SERVE_PADDING": "upstream", "MOE_SERVE_MAX_NEURON_LOSS": "0.07"}
    check = table(tmp_path, Card(), environment={**AITER_ON, **allowed})["pads"]

    assert check.passed
    assert "192 of 2880 neurons lost" in check.detail


def test_a_model_that_does_not_divide_fails(tmp_path: Path) -> None:
    check = table(tmp_path, *[Card()] * 7, tp=7)["pads"]

    assert check.outcome is PreflightOutcome.FAIL
    assert "do not divide by 7" in check.detail


def test_a_tool_is_asked_only_where_sys_is_silent(tmp_path: Path) -> None:
    asked = []
    pod = Pod(
        gpu=True,
        parallel=Parallelism(),
        model=None,
        software=SOFTWARE,
        settings=from_environment({}),
        environment={"HOME": str(tmp_path)},
        root=node(tmp_path, Card(mec=None, kfd_mec=None)),
        run_tool=lambda command: asked.append(command[0]) or "MEC firmware version: 41",  # type: ignore[func-returns-value]
    )
    found = {check.name: check for check in check_pod(pod)}

    assert asked == ["rocm-smi"]
    assert found["firmware"].detail == "MEC firmware 41, 24 is enough"


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {"HOME": str(tmp_path), "VLLM_CACHE_ROOT": str(tmp_path / "file/cache")}
    found = {check.name: check for check in check_folders(read_folders(environment), environment)}

    assert found["HOME"].passed
    assert found["VLLM_CACHE_ROOT"].outcome is PreflightOutcome.FAIL
    assert "set VLLM_CACHE_ROOT" in found["VLLM_CACHE_ROOT"].detail
    assert found["AITER_JIT_DIR"].outcome is PreflightOutcome.SKIP


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "a/b")}

    assert next(iter(check_folders(read_folders(environment), environment))).passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "readable", "passes"),
    [
        ({"HF_HUB_OFFLINE": "1"}, True, True),
        ({"HF_HUB_OFFLINE": "1"}, False, False),
        ({}, True, False),
    ],
)
def test_weights_may_be_read_only_where_nothing_is_downloaded(
    environment: Mapping[str, str], readable: bool, passes: bool
) -> None:
    folder = folders.Folder(
        variable="HF_HOME", path="/models", fault="Read-only file system", readable=readable
    )

    assert next(iter(check_folders((folder,), environment))).passed is passes


@pytest.mark.parametrize(
    ("size", "ranks", "passes"),
    [
        (64 * 2**20, 1, True),
        (32 * 2**20, 1, False),
        (64 * 2**20, 8, False),
        (16 * GIB, 8, True),
        (None, 1, False),
    ],
)
def test_shared_memory_grows_with_the_ranks(size: int | None, ranks: int, passes: bool) -> None:
    found = check_shm(size, ranks=ranks)

    assert found.passed is passes
    assert passes or "emptyDir" in found.detail


def test_a_damaged_vocabulary_fails(tmp_path: Path) -> None:
    (tmp_path / folders.VOCABULARY_FILE).write_bytes(b"cut off")

    assert "replace it" in check_vocabulary({"TIKTOKEN_ENCODINGS_BASE": str(tmp_path)}).detail
    assert not check_vocabulary({"TIKTOKEN_ENCODINGS_BASE": str(tmp_path / "none")}).passed


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "llama"}, "its experts' sizes are not known"),
        ({"quantization_config": {"quant_method": "quark"}}, "its quantisation, quark"),
        ({"quantization_config": None}, "not MXFP4"),
    ],
)
def test_a_model_that_cannot_be_judged_is_said(
    config: dict[str, object], says: str, tmp_path: Path
) -> None:
    sizes = {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
        "num_local_experts": 128, "num_experts_per_tok": 4,
    }  # fmt: skip
    whole = config if "model_type" in config else {**sizes, **config}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    check = table(tmp_path / "node", Card(), model=str(tmp_path))["pads"]

    assert check.outcome is PreflightOutcome.SKIP
    assert says in check.detail


def test_the_hugging_face_cache_is_looked_into(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--someone--gpt-oss-fine/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "gpt_oss"}')

    assert find_model("someone/gpt-oss-fine", {"HF_HOME": str(tmp_path)}).gpt_oss
    assert "no config.json" in (
        find_model("someone/else", {"HF_HOME": str(tmp_path)}).unknown or ""
    )


def test_nothing_asked_is_no_pass() -> None:
    assert not all_pass([skip("gpu", "--no-gpu")])
    assert not all_pass([])


def test_a_check_left_out_by_name_stays_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "")
    main(["preflight", "--no-gpu", "--skip", "HOME", "--output", "json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}

    assert checks["HOME"]["passed"] is None
    assert "it would say FAIL" in checks["HOME"]["detail"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--no-gpu", "--skip", "nonsense"], "--skip nonsense"),
        (["--proof", "--tp", "8"], "--tp: not with --proof"),
        (["--url", "http://x"], "--url: only with --proof"),
        (["--proof", "--url", "ftp://x"], "--url 'ftp://x'"),
        (["--proof", "--url", "http://x:y/"], "--url 'http://x:y/'"),
    ],
)
def test_flags_that_say_nothing_together_are_one_line(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preflight", *flags]) == 2
    assert named in capsys.readouterr().err


def test_a_variable_of_ours_that_is_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOE_SERVE_PADDING", "best")

    assert main(["preflight", "--no-gpu"]) == 2
    assert "MOE_SERVE_PADDING='best'" in capsys.readouterr().err


def test_this_machine_is_asked_for_real(capsys: pytest.CaptureFixture[str]) -> None:
    main(["preflight", "--no-gpu"])
    lines = capsys.readouterr().out.splitlines()

    assert [line.split()[1] for line in lines[:5]] == [
        "devices", "gpu", "partition", "vram", "firmware",
    ]  # fmt: skip
