"""The plugin over a doctored vLLM: what it sends, refuses, proves and puts back."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import moe_serve.vllm_plugin as plugin
from moe_serve.errors import MoeServeError, PaddingUnsafe, UnknownVllm, UsageError
from moe_serve.telemetry.record import Kind, Mode, read_records
from moe_serve.vllm_plugin import aligned_padding
from tests.vllm_plugin import doctored
from tests.vllm_plugin.doctored import BF16, SITU, SWIGLU, W4A16, Tensor, moe_config

PARALLEL = SimpleNamespace(tensor_parallel_size=2, pipeline_parallel_size=1, data_parallel_rank=0)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[doctored.Received]:
    for name in ("MOE_SERVE_PADDING", "MOE_SERVE_MAX_NEURON_LOSS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOE_SERVE_RECORD_DIR", str(tmp_path / "records"))
    yield []
    plugin.unregister()


@pytest.fixture
def experts(monkeypatch: pytest.MonkeyPatch, received: doctored.Received) -> ModuleType:
    return doctored.install(monkeypatch, received)[0]


def call(module: ModuleType, **changes: Any) -> Any:
    arguments = {
        "hidden_states": Tensor(4, 3072),
        "w1": Tensor(128, 6144, 3072),
        "moe_config": moe_config(),
        "activation": SWIGLU,
        "quant_config": W4A16,
        **changes,
    }
    return module.rocm_aiter_fused_experts(**arguments)


def sent(received: doctored.Received) -> tuple[int, int]:
    return received[-1]["hidden_pad"], received[-1]["intermediate_pad"]


def test_aligned_pads_replace_vllms_own(experts: ModuleType, received: doctored.Received) -> None:
    plugin.register()

    assert call(experts) == "result"
    assert sent(received) == (0, 128)  # AITER's version is unknown here: safe in every era


def test_arguments_by_position_are_found_by_name(
    experts: ModuleType, received: doctored.Received
) -> None:
    plugin.register()

    experts.rocm_aiter_fused_experts(Tensor(4, 3072), Tensor(1), moe_config(), SWIGLU, W4A16)

    assert sent(received) == (0, 128)


def test_registering_again_changes_nothing(
    experts: ModuleType, received: doctored.Received
) -> None:
    plugin.register()
    once = experts.rocm_aiter_fused_experts
    plugin.register()

    assert experts.rocm_aiter_fused_experts is once


def test_off_patches_nothing(
    experts: ModuleType, received: doctored.Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_SERVE_PADDING", "off")
    before = (experts.rocm_aiter_fused_experts, list(sys.meta_path))
    plugin.register()

    assert (experts.rocm_aiter_fused_experts, list(sys.meta_path)) == before


def test_unregistering_puts_everything_back(
    experts: ModuleType, received: doctored.Received
) -> None:
    workers = sys.modules["vllm.v1.worker.gpu_worker"]
    before = (
        experts.rocm_aiter_fused_experts,
        experts.rocm_aiter_ops.fused_moe,
        workers.Worker.load_model,
        list(sys.meta_path),
    )
    plugin.register()
    plugin.unregister()

    assert (
        experts.rocm_aiter_fused_experts,
        experts.rocm_aiter_ops.fused_moe,
        workers.Worker.load_model,
        list(sys.meta_path),
    ) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"quant_config": BF16},
        {"activation": SITU},
    ],
)
def test_experts_that_are_none_of_its_business_are_left_as_they_are(
    changes: dict[str, Any], experts: ModuleType, received: doctored.Received
) -> None:
    plugin.register()

    call(experts, **changes)

    assert sent(received) == (128, 384)


def test_lossy_upstream_pads_stop_the_start_with_numbers_and_ways_out(
    experts: ModuleType, received: doctored.Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_SERVE_PADDING", "upstream")
    plugin.register()

    with pytest.raises(PaddingUnsafe) as caught:
        call(experts)

    words = ["192 of 2880", "MOE_SERVE_PADDING=aligned", "MOE_SERVE_PADDING=off", "cktile"]
    assert [word for word in words if word not in str(caught.value)] == []
    assert received == []


def test_a_call_that_was_refused_is_refused_again(
    experts: ModuleType, received: doctored.Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_SERVE_PADDING", "rounded")
    plugin.register()

    for _ in range(2):
        with pytest.raises(PaddingUnsafe):
            call(experts)


def _lose(experts: ModuleType, name: str) -> None:
    def without_pads(hidden_states: Any, w1: Any) -> None: ...

    if name == "fused_moe":
        experts.rocm_aiter_ops.fused_moe = staticmethod(without_pads)  # type: ignore[attr-defined]
    elif name == "ops":
        del experts.rocm_aiter_ops  # type: ignore[attr-defined]
    else:
        experts.rocm_aiter_fused_experts = without_pads  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", ["fused_moe", "ops", "experts"])
def test_a_vllm_that_looks_different_is_not_half_patched_and_refuses(
    lost: str, experts: ModuleType, received: doctored.Received
) -> None:
    _lose(experts, lost)
    fused_moe = getattr(getattr(experts, "rocm_aiter_ops", None), "fused_moe", None)
    plugin.register()

    assert getattr(getattr(experts, "rocm_aiter_ops", None), "fused_moe", None) is fused_moe
    with pytest.raises(UnknownVllm, match="MOE_SERVE_PADDING=off"):
        experts.rocm_aiter_fused_experts(Tensor(4, 3072), Tensor(1))
    with pytest.raises(UnknownVllm, match="MOE_SERVE_PADDING=off"):
        load(sys.modules["vllm.v1.worker.gpu_worker"])


def test_a_configuration_without_its_fields_refuses(
    experts: ModuleType, received: doctored.Received
) -> None:
    plugin.register()

    with pytest.raises(UnknownVllm, match="hidden_dim_unpadded"):
        call(experts, moe_config=moe_config(hidden_dim_unpadded=None))


@pytest.mark.parametrize("version", ["dev", "0.20.2"])
def test_a_vllm_whose_version_cannot_be_judged_refuses(
    version: str, received: doctored.Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts, _ = doctored.install(monkeypatch, received, version=version)
    plugin.register()

    with pytest.raises(UnknownVllm, match=f"{version}.*MOE_SERVE_PADDING=off"):
        call(experts)


def test_pads_that_come_without_a_layer_are_refused(
    experts: ModuleType, received: doctored.Received
) -> None:
    plugin.register()

    with pytest.raises(UnknownVllm, match="without its layer"):
        experts.rocm_aiter_ops.fused_moe(Tensor(4, 3072), Tensor(1), hidden_pad=128)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOE_SERVE_PADDING", "alligned"),
        ("MOE_SERVE_MAX_NEURON_LOSS", "7"),
        ("MOE_SERVE_MAX_NEURON_LOSS", "some"),
    ],
)
def test_a_setting_that_cannot_be_stops_the_worker_not_the_plugin(
    name: str,
    value: str,
    experts: ModuleType,
    received: doctored.Received,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    plugin.register()

    with pytest.raises(UsageError, match=f"{name}='{value}'"):
        load(sys.modules["vllm.v1.worker.gpu_worker"])


def load(workers: ModuleType, rank: int = 0) -> Any:
    worker = workers.Worker()
    worker.rank, worker.parallel_config = rank, PARALLEL
    worker.device = SimpleNamespace(type="cpu")
    worker.load_model()
    return worker


def step(worker: Any, *tokens: int) -> None:
    scheduled = {str(number): count for number, count in enumerate(tokens)}
    worker.execute_model(
        SimpleNamespace(num_scheduled_tokens=scheduled, total_num_scheduled_tokens=sum(tokens))
    )


def test_the_worker_proves_what_it_sent_at_a_real_call(
    experts: ModuleType, received: doctored.Received, tmp_path: Path
) -> None:
    plugin.register()
    worker = load(sys.modules["vllm.v1.worker.gpu_worker"], rank=1)
    (before,) = read_records(tmp_path / "records")
    call(experts)
    (after,) = read_records(tmp_path / "records")

    assert after.path.name == "dp0-pp0-tp1.record"
    assert (before.proof["intercepted_calls"], after.proof["intercepted_calls"]) == (0, 1)
    assert (after.alive, after.proof["policy"]) == (True, "aligned")
    (shape,) = after.proof["shapes"]
    assert shape["sent"] == {"hidden": 0, "intermediate": 128}
    assert (shape["safe"], shape["lost_neurons"], shape["live_neurons"]) == (True, 0, 2880)
    assert worker.rank == 1


def test_only_calls_within_real_steps_are_counted(
    experts: ModuleType, received: doctored.Received, tmp_path: Path
) -> None:
    plugin.register()
    worker = load(sys.modules["vllm.v1.worker.gpu_worker"])
    layers = (Tensor(1, at=100), Tensor(1, at=200))
    call(experts, w1=layers[1])  # warm-up: outside a step
    worker.run = lambda: [call(experts, w1=layer) for layer in layers]
    step(worker, 1, 1, 1, 1)
    step(worker, 1, 1, 1, 1)
    step(worker, 3, 1)
    step(worker)  # nothing scheduled

    (record,) = read_records(tmp_path / "records")

    counts = {(k.kind, k.layer, k.bucket, k.mode): v.count for k, v in record.totals.items()}
    assert counts == {
        (Kind.KERNEL, 0, 4, Mode.DECODE): 2,
        (Kind.KERNEL, 1, 4, Mode.DECODE): 2,
        (Kind.STEP, None, 4, Mode.DECODE): 2,
        (Kind.KERNEL, 0, 4, Mode.MIXED): 1,
        (Kind.KERNEL, 1, 4, Mode.MIXED): 1,
        (Kind.STEP, None, 4, Mode.MIXED): 1,
    }


def test_serving_goes_on_where_no_record_can_be_written(
    experts: ModuleType,
    received: doctored.Received,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOE_SERVE_RECORD_DIR", str(tmp_path / "file"))
    plugin.register()
    worker = load(sys.modules["vllm.v1.worker.gpu_worker"])
    worker.run = lambda: call(experts)
    step(worker, 1)

    assert sent(received) == (0, 128)
    assert "no proof and no telemetry" in caplog.text


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_starts_a_session_of_its_own(
    experts: ModuleType, received: doctored.Received, tmp_path: Path
) -> None:
    plugin.register()
    load(sys.modules["vllm.v1.worker.gpu_worker"], rank=0)
    pid = os.fork()
    if pid == 0:  # what vLLM's forked worker does: no register(), its model, a call
        load(sys.modules["vllm.v1.worker.gpu_worker"], rank=1)
        call(experts)
        os._exit(0 if sent(received) == (0, 128) else 1)
    _, status = os.waitpid(pid, 0)

    parent, child = read_records(tmp_path / "records")
    assert os.waitstatus_to_exitcode(status) == 0
    assert (parent.alive, child.alive) == (True, False)
    assert (parent.proof["intercepted_calls"], child.proof["intercepted_calls"]) == (0, 1)


def test_a_module_that_took_the_function_by_name_gets_the_wrapped_one(
    experts: ModuleType, received: doctored.Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    importer = ModuleType(aligned_padding.IMPORTERS[0])
    importer.rocm_aiter_fused_experts = experts.rocm_aiter_fused_experts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, importer.__name__, importer)
    plugin.register()

    assert importer.rocm_aiter_fused_experts is experts.rocm_aiter_fused_experts


def test_every_refusal_is_an_error_of_this_project() -> None:
    assert issubclass(PaddingUnsafe, MoeServeError)
    assert issubclass(UnknownVllm, MoeServeError)
