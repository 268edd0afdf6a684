"""The shipped command line, with a failpoint around the ports of the controller it assembles."""

import os
from typing import Any

from moe_serve.cli import controller_assembly
from moe_serve.cli.main import main
from moe_serve.controller.run import Runner, Thread
from tests.testing.failpoints import Failpoint, install


def run(arguments: list[str], failpoint: str) -> int:
    """Exit code of `moe-serve ARGUMENTS`, which dies with 137 at `failpoint` (`NAME:N`)."""
    assemble = controller_assembly.assemble

    def assemble_with_failpoint(*args: Any, **named: Any) -> tuple[Runner, list[Thread]]:
        runner, threads = assemble(*args, **named)
        name, _, passages = failpoint.partition(":")
        install(runner.controller, Failpoint(name, lambda: os._exit(137), int(passages)))
        return runner, threads

    if failpoint:
        controller_assembly.assemble = assemble_with_failpoint
    return main(arguments)
