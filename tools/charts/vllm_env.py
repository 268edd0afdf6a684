"""`charts/moe-serve/files/vllm-env.json`: every variable that the pinned vLLM reads.

.venv-vllm/bin/python -m tools.charts.vllm_env    write it, in the serving environment
"""

import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "charts/moe-serve/files/vllm-env.json"


def text() -> str:
    """The file's text, from the vLLM that is installed here."""
    import vllm
    import vllm.envs

    names = sorted(name for name in vllm.envs.environment_variables if name.startswith("VLLM_"))
    minor = ".".join(vllm.__version__.split(".")[:2])
    return json.dumps({"vllm": minor, "names": names}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
