"""When the emulation takes effect, and when it refuses."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from moe_serve_emulation import seam
from moe_serve_emulation.errors import EmulationError

from moe_serve.vllm_plugin import import_hook


def platforms(*, cpu: bool) -> ModuleType:
    module = ModuleType("vllm.platforms")
    platform = SimpleNamespace(is_cpu=lambda: cpu, device_name="cpu" if cpu else "rocm")
    module.current_platform = platform  # type: ignore[attr-defined]  # as vLLM's module has it
    return module


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(seam, "on_import", lambda name, callback: asked.append(name))
    monkeypatch.delitem(sys.modules, "vllm.platforms", raising=False)
    return asked


def test_nothing_happens_unless_asked_for_by_name(
    hooked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(seam.VARIABLE, raising=False)

    seam.register()

    assert hooked == []


def test_an_unknown_path_is_refused(hooked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(seam.VARIABLE, "yes")

    with pytest.raises(EmulationError, match="MOE_SERVE_EMULATE_AITER=yes: no emulated path"):
        seam.register()


def test_the_seam_waits_for_vllms_own_modules(
    hooked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(seam.VARIABLE, "cktile")
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms(cpu=True))

    seam.register()

    assert hooked == [seam.AITER_MODULE, seam.EXPERTS_MODULE, seam.WORKER_MODULE]


def test_a_gpu_is_refused_in_one_line(hooked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(seam.VARIABLE, "cktile")
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms(cpu=False))

    with pytest.raises(EmulationError, match=r"^MOE_SERVE_EMULATE_AITER: .* rocm"):
        seam.register()

    assert hooked == []


def test_a_second_call_registers_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(seam.VARIABLE, "cktile")
    monkeypatch.delitem(sys.modules, "vllm.platforms", raising=False)
    for name in (seam.AITER_MODULE, seam.EXPERTS_MODULE, seam.WORKER_MODULE):
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        seam.register()
        finders = list(sys.meta_path)
        seam.register()

        assert sys.meta_path == finders
    finally:
        import_hook.forget(seam.AITER_MODULE, seam._check_platform)
        import_hook.forget(seam.EXPERTS_MODULE, seam._patch)
        import_hook.forget(seam.WORKER_MODULE, seam._profile_first)
