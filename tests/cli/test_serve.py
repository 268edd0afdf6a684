"""The image's entry point: what it says, what it refuses, and that it becomes vLLM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe_serve.cli import serve
from moe_serve.cli.main import build_parser, main
from moe_serve.preflight.arguments import read_arguments
from moe_serve.preflight.software import Software

GOOD = Software(vllm="0.32.0", aiter="0.1.24.post1", plugin=True)
BAD = Software(vllm="0.22.1", aiter="0.1.13", plugin=True)
WORDS = ["openai/gpt-oss-120b", "-tp", "8", "--port=8000"]


class Became(Exception):
    """`exec` was called, with these words."""


@pytest.fixture(autouse=True)
def no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(file: str, words: list[str], environment: object) -> None:
        raise Became(*words)

    monkeypatch.setattr(os, "execvpe", become)
    monkeypatch.setattr(serve, "installed", lambda: GOOD)
    for name in [name for name in os.environ if name.startswith(("MOE_SERVE_", "VLLM_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VLLM_ROCM_USE_AITER", "1")


def start(*words: str) -> tuple[str, ...]:
    with pytest.raises(Became) as became:
        main(["serve", *words])
    return became.value.args


def test_one_line_says_what_will_serve(capsys: pytest.CaptureFixture[str]) -> None:
    words = start(*WORDS)

    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert (
        "vLLM 0.32.0, AITER 0.1.24.post1; openai/gpt-oss-120b at TP=8; pads 192/152 of 192/152"
        in out
    )
    assert words[-4:] == tuple(WORDS)


@pytest.mark.parametrize(
    ("software", "variables", "words", "named"),
    [
        (BAD, {}, WORDS, "vllm-0.22-tensor-parallel"),
        (GOOD, {"MOE_SERVE_PADDING": "upstream"}, ["gpt-oss-120b"], "192 of 2880 neurons lost"),
        (GOOD, {"VLLM_PLUGINS": "other"}, WORDS, "VLLM_PLUGINS leaves moe_serve out"),
        (Software(vllm="0.32.0", aiter="0.1.24", plugin=False), {}, WORDS, "beside vLLM"),
        (Software(vllm=None, aiter=None, plugin=True), {}, WORDS, "vLLM is not installed"),
        (GOOD, {"MOE_SERVE_PADDING": "best"}, WORDS, "MOE_SERVE_PADDING='best'"),
        (BAD, {"MOE_SERVE_ALLOW_KNOWN_BAD": "yes"}, WORDS, "MOE_SERVE_ALLOW_KNOWN_BAD='yes'"),
        (GOOD, {}, [], "MODEL: missing"),
    ],
)
def test_what_must_not_serve_is_refused_in_one_line(
    software: Software,
    variables: dict[str, str],
    words: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(serve, "installed", lambda: software)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert main(["serve", *words]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1


def test_the_operator_may_insist_and_is_warned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "installed", lambda: BAD)
    monkeypatch.setenv("MOE_SERVE_ALLOW_KNOWN_BAD", "1")

    start(*WORDS)
    assert "WARNING: MOE_SERVE_ALLOW_KNOWN_BAD=1: known-bad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "words", "says"),
    [
        ({}, ["someone/model"], "pads not judged: no config.json of someone/model here"),
        ({}, ["gpt-oss-120b", "-tp", "7"], "pads not judged: --tp 7"),
        ({}, ["gpt-oss-120b", "--config", "x.yaml"], "pads not judged: flags in x.yaml"),
        ({"MOE_SERVE_PADDING": "off"}, WORDS, "MOE_SERVE_PADDING=off: stock vLLM"),
        ({"VLLM_ROCM_USE_AITER": "0"}, WORDS, "do not run on AITER"),
        ({}, [*WORDS, "--moe-backend", "triton"], "do not run on AITER"),
    ],
)
def test_what_cannot_be_judged_is_said_and_not_fatal(
    variables: dict[str, str],
    words: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    start(*words)
    assert says in capsys.readouterr().out


def test_without_a_vllm_command_its_module_serves() -> None:
    words = ["--port", "8000", "--model", "gpt-oss-120b", "-tp", "8"]
    software = Software(vllm="0.32.0", aiter=None, plugin=True, command=False)

    assert serve.command_line(read_arguments(words), words, software) == [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", "gpt-oss-120b", "--port", "8000", "-tp", "8",
    ]  # fmt: skip


def test_help_is_ours_and_vllms_help_is_vllms(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert "becomes" in capsys.readouterr().out
    assert start("gpt-oss-120b", "--help")[-1] == "--help"


def test_vllm_takes_this_process_and_its_signals(tmp_path: Path) -> None:
    command = tmp_path / "vllm"
    command.write_text('#!/bin/sh\necho "$$ $*"\n')
    command.chmod(0o755)
    code = """
import sys
from moe_serve.cli import serve
from moe_serve.preflight.software import Software
serve.installed = lambda: Software(vllm="0.32.0", aiter="0.1.24.post1", plugin=True)
sys.executable = "/nowhere/python"
serve.run(["gpt-oss-120b", "--port", "8000"])
"""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        out = process.communicate()[0].splitlines()

    assert out[0].startswith("moe-serve ")
    assert out[1] == f"{process.pid} serve gpt-oss-120b --port 8000"


def test_one_verb_does_not_pay_for_the_others() -> None:
    code = (
        "import sys\nfrom moe_serve.cli.main import main\nmain(['preflight', '--proof'])\n"
        "others = ('moe_serve.judge', 'moe_serve.analysis', 'moe_serve.vllm')\n"
        "print([n for n in sys.modules if n.startswith(others)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_every_verb_is_in_the_help() -> None:
    assert "serve" in build_parser().format_help()


@pytest.mark.parametrize("verb", ["serve", "preflight"])
def test_the_standard_library_is_enough(verb: str) -> None:
    code = f"""
import sys
allowed = set(sys.stdlib_module_names) | {{"moe_serve"}}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from moe_serve.cli.main import main
sys.exit(main([{verb!r}, "--no-gpu"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)
