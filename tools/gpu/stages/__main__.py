"""One stage in a process of its own: `python -m tools.gpu.stages NAME FOLDER`."""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from tools.gpu.stages import STAGES


def main(name: str, folder: str) -> int:
    """Run the stage and leave what it found."""
    stage = STAGES[name]
    try:
        module = importlib.import_module(f"tools.gpu.stages.{stage.module}")
        found = getattr(module, stage.function)()
    except Exception as error:  # noqa: BLE001  # whatever a stage dies of is its result
        traceback.print_exc()
        document = {"reason": f"{type(error).__name__}: {error}"[:2000]}
    else:
        document = {"found": found}
    (Path(folder) / f"{name}.json").write_text(json.dumps(document, default=str), "utf-8")
    return 0 if "found" in document else 1


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # vLLM's threads and CUDA's do not end by themselves.
    os._exit(code)
