"""Every question before the model, in the table's order: facts are read here, judged elsewhere."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_serve.padding.shapes import Parallelism
from moe_serve.preflight.checks import PreflightCheck, skip
from moe_serve.preflight.devices import check_devices, read_device_files
from moe_serve.preflight.expected_gpus import ExpectedGpus
from moe_serve.preflight.folders import (
    check_folders,
    check_shm,
    check_vocabulary,
    read_folders,
    shm_bytes,
)
from moe_serve.preflight.gpus import (
    CHECK_NAMES,
    SCRATCH,
    Gpu,
    check_gpus,
    firmware_from_tools,
    read_gpus,
    run_tool,
    target,
)
from moe_serve.preflight.known_bad import check_known_bad
from moe_serve.preflight.models import ModelFiles
from moe_serve.preflight.pads import check_pads
from moe_serve.preflight.software import Software, check_software
from moe_serve.vllm_plugin.settings import PluginSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What is asked of a pod. `root`: where its file system begins, and `shm` in it.

    `open_file` and `run_tool` are the two things that are done, not read.
    """

    gpu: bool
    parallel: Parallelism
    model: ModelFiles | None
    software: Software
    settings: PluginSettings
    environment: Mapping[str, str]
    expected: ExpectedGpus = field(default_factory=ExpectedGpus)
    root: Path = Path("/")
    open_file: Callable[[Path], None] | None = None
    run_tool: Callable[[Sequence[str]], str] = run_tool


def check_pod(pod: Pod) -> Iterator[PreflightCheck]:
    """The whole table."""
    gpus = read_gpus(pod.root) if pod.gpu else ()
    yield from _gpu_checks(pod, gpus)
    yield from check_software(pod.software, pod.environment, gpu=pod.gpu)
    yield check_known_bad(pod.model, pod.parallel, pod.software, pod.environment, gfx=target(gpus))
    yield check_pads(pod.model, pod.parallel, pod.software, pod.settings, pod.environment)
    yield from check_folders(read_folders(pod.environment), pod.environment)
    yield _vocabulary(pod)
    yield check_shm(shm_bytes(pod.root / "dev/shm"), ranks=pod.parallel.ranks)


def _gpu_checks(pod: Pod, gpus: tuple[Gpu, ...]) -> Iterator[PreflightCheck]:
    if not pod.gpu:
        yield from (skip(name, "--no-gpu") for name in ("devices", *CHECK_NAMES))
        return
    who = f"user {os.getuid()}, groups {','.join(map(str, sorted(set(os.getgroups()))))}"
    files = read_device_files(pod.root, pod.open_file)
    yield check_devices(files, wanted=pod.parallel.ranks, who=who)
    hidden = any(gpu.mec_firmware is None for gpu in gpus)
    # The tools are slow: only where /sys does not tell, and the answer matters.
    needed = hidden and pod.environment.get(SCRATCH) != "1"
    yield from check_gpus(
        gpus,
        wanted=pod.parallel.ranks,
        firmware=firmware_from_tools(pod.run_tool) if needed else None,
        environment=pod.environment,
        expected=pod.expected,
    )


def _vocabulary(pod: Pod) -> PreflightCheck:
    if pod.model is None:
        return skip("vocabulary", "no --model")
    if not pod.model.gpt_oss:
        return skip("vocabulary", f"{pod.model.name} is not GPT-OSS")
    return check_vocabulary(pod.environment)
