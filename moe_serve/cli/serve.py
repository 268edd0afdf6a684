"""`moe-serve serve MODEL ...`: say what will serve, refuse what is known to be wrong, become vLLM.

The image's entry point. vLLM takes this process's place, so that it gets its signals itself.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.preflight.arguments import EngineArguments, read_arguments
from moe_serve.preflight.gpus import read_gpus, target
from moe_serve.preflight.models import find_model
from moe_serve.preflight.software import Software, installed
from moe_serve.preflight.start import decide
from moe_serve.vllm_plugin.settings import from_environment

ALLOW = "MOE_SERVE_ALLOW_KNOWN_BAD"
_SERVER = "vllm.entrypoints.openai.api_server"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Describe `serve`; its arguments are vLLM's, and pass to it untouched."""
    parser.usage = "moe-serve serve MODEL [arguments of vllm serve]"
    parser.description = (
        "Says in one line what will serve and which pads it will send, refuses combinations that "
        f"are known to answer wrongly (exit 2; {ALLOW}=1 lets them through), then becomes "
        "`vllm serve`. No argument is its own."
    )


def run(words: Sequence[str]) -> int:
    """Become vLLM; returns only if that is refused or fails, by raising.

    Raises:
        UsageError: a known-bad combination, unsafe pads, no model, no vLLM.
    """
    environment = os.environ
    arguments = read_arguments(words)
    software = installed()
    if software.vllm is None:
        raise UsageError("vLLM is not installed beside moe-serve; run this in the serving image")
    gpus = read_gpus(Path("/"))
    start = decide(
        arguments,
        find_model(arguments.model, environment),
        software,
        from_environment(environment),
        gfx=target(gpus),
        environment=environment,
    )
    _say(start.line)
    if start.refusals and not _allowed(environment):
        raise UsageError(f"{'; '.join(start.refusals)}; {ALLOW}=1 serves all the same")
    for refusal in start.refusals:
        _say(f"moe-serve: WARNING: {ALLOW}=1: {refusal}")
    command = command_line(arguments, words, software)
    os.execvpe(command[0], command, environment)


def command_line(arguments: EngineArguments, words: Sequence[str], software: Software) -> list[str]:
    """The `vllm` command where it works, the one beside this Python first; else vLLM's module."""
    beside = Path(sys.executable).parent / "vllm"
    vllm = str(beside) if os.access(beside, os.X_OK) else shutil.which("vllm")
    if vllm and software.command:
        return [vllm, "serve", *words]
    return [sys.executable, "-m", _SERVER, "--model", arguments.model, *arguments.rest]


def _allowed(environment: Mapping[str, str]) -> bool:
    text = environment.get(ALLOW, "")
    if text not in ("", "0", "1"):
        raise UsageError(f"{ALLOW}={text!r} is not allowed; set 1, or leave it out")
    return text == "1"


def _say(line: str) -> None:
    # To where vLLM's own log goes; flushed, for what is buffered is lost at exec.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
