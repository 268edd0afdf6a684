"""The plugin over a doctored vLLM: what it sends, refuses, proves and puts back."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import moe_serve.vllm_plugin as plugin
from moe_serve.errors import MoeServeError, PaddingUnsafe, RecordError, UnknownVllm, UsageError
from moe_serve.telemetry.proof import GraphsProof, LayersProof
from moe_serve.telemetry.record import (
    BatchPhase,
    ModelRole,
    Rank,
    RecordWriter,
    SlotKey,
    SlotKind,
    Totals,
    read_records,
)  # fmt: skip
from moe_serve.vllm_plugin.markers import host, sampler
from moe_serve.vllm_plugin.worker_config import rank_of
from tests.vllm_plugin import doctored
from tests.vllm_plugin.doctored import BF16, SITU, SWIGLU, W4A16, Tensor, moe_config


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[doctored.Received]:
    for name in ("MOE_SERVE_PADDING", "MOE_SERVE_MAX_NEURON_LOSS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOE_SERVE_RECORD_DIR", str(tmp_path / "records"))
    # An AITER whose version says nothing and whose source shows that it is 0.1.14 or newer.
    source = tmp_path / "site" / "aiter" / "fused_moe.py"
    source.parent.mkdir(parents=True)
    source.write_text("def fused_moe(hidden_states, gate_mode=''): ...\n")
    (source.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
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
    assert sent(received) == (192, 128)  # safe in every release from 0.1.14 on


def test_arguments_by_position_are_found_by_name(
    experts: ModuleType, received: doctored.Received
) -> None:
    plugin.register()

    experts.rocm_aiter_fused_experts(Tensor(4, 3072), Tensor(1), moe_config(), SWIGLU, W4A16)

    assert sent(received) == (192, 128)


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
    monkeypatch.setenv("MOE_SERVE_MARKERS", "a mistake of no consequence")
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
        ("MOE_SERVE_MARKERS", "on"),
        ("MOE_SERVE_MARKER_LAYERS", "first;last"),
        ("MOE_SERVE_MARKER_BUDGET", "-1"),
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


def load(
    workers: ModuleType, rank: int = 0, layers: dict[str, doctored.MoeRunner] | None = None
) -> Any:
    worker = doctored.make_worker(workers, rank=rank, layers=layers)
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
    assert (before.proof.intercepted_calls, after.proof.intercepted_calls) == (0, 1)
    assert (after.alive, after.proof.policy) == (True, "aligned")
    (shape,) = after.proof.shapes
    assert str(shape.sent) == "192/128"
    assert (shape.safe, shape.lost_neurons, shape.live_neurons) == (True, 0, 2880)
    assert worker.rank == 1


@pytest.fixture
def served(experts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker of three MoE layers and a drafter's, at work."""
    monkeypatch.setattr(host, "PAIRS", 3)
    names = ("model.layers.4.mlp", "model.layers.5.mlp", "model.layers.6.mlp", "draft.0.mlp")
    layers = {name: doctored.MoeRunner(lambda: call(experts)) for name in names}

    def make() -> Any:
        plugin.register()
        worker = load(sys.modules["vllm.v1.worker.gpu_worker"], layers=layers)
        worker.run = lambda: [runner.forward() for runner in layers.values()]
        worker.layers = layers
        return worker

    return make


def totals(folder: Path) -> dict[SlotKey, Totals]:
    (record,) = read_records(folder / "records")
    return dict(record.totals)


def counts(folder: Path) -> dict[tuple[Any, ...], int]:
    return {
        (key.kind, key.model, key.layer, key.phase, key.bucket): total.count
        for key, total in totals(folder).items()
    }


def test_only_calls_of_sampled_layers_within_real_steps_are_counted(
    served: Any, experts: ModuleType, tmp_path: Path
) -> None:
    worker = served()
    worker.compile_or_warm_up_model()
    step(worker, 1, 1, 1, 1)
    worker.execute_dummy_batch()
    step(worker, 1, 1, 1, 1)
    step(worker, 3, 1)
    step(worker)  # nothing scheduled
    call(experts)  # of no layer

    assert counts(tmp_path) == {
        (SlotKind.KERNEL, ModelRole.TARGET, 4, BatchPhase.DECODE, 4): 2,
        (SlotKind.KERNEL, ModelRole.TARGET, 6, BatchPhase.DECODE, 4): 2,
        (SlotKind.KERNEL, ModelRole.DRAFT, 3, BatchPhase.DECODE, 4): 2,
        (SlotKind.WINDOW, ModelRole.TARGET, None, BatchPhase.DECODE, 4): 2,
        (SlotKind.STEP, ModelRole.TARGET, None, BatchPhase.DECODE, 4): 2,
        (SlotKind.KERNEL, ModelRole.TARGET, 4, BatchPhase.MIXED, 4): 1,
        (SlotKind.KERNEL, ModelRole.TARGET, 6, BatchPhase.MIXED, 4): 1,
        (SlotKind.KERNEL, ModelRole.DRAFT, 3, BatchPhase.MIXED, 4): 1,
        (SlotKind.WINDOW, ModelRole.TARGET, None, BatchPhase.MIXED, 4): 1,
        (SlotKind.STEP, ModelRole.TARGET, None, BatchPhase.MIXED, 4): 1,
        (SlotKind.SCHEDULE, ModelRole.TARGET, None, BatchPhase.DECODE, 0): 2,
        (SlotKind.SCHEDULE, ModelRole.TARGET, None, BatchPhase.MIXED, 0): 1,
    }
    found = totals(tmp_path)
    real = [total.tokens for key, total in found.items() if key.kind is SlotKind.SCHEDULE]
    assert sorted(real) == [4, 8]


def test_the_proof_tells_what_is_timed_and_what_that_costs(served: Any, tmp_path: Path) -> None:
    served()
    (record,) = read_records(tmp_path / "records")
    markers = record.proof.markers

    assert record.proof.layers == LayersProof(moe=3, sampled=(4, 6))
    assert (markers.state, markers.backend, markers.path) == ("on", "host", "host")
    assert 0 <= markers.bias_seconds <= markers.pair_seconds
    assert record.proof.graphs == GraphsProof()
    assert len(record.proof.worker_config_digest) == 16


@pytest.mark.parametrize(
    ("name", "value", "timed", "state"),
    [
        ("MOE_SERVE_MARKER_LAYERS", "all", {4, 5, 6, 3}, "on"),
        ("MOE_SERVE_MARKER_LAYERS", "5", {5}, "on"),
        ("MOE_SERVE_MARKER_LAYERS", "77", set(), "unsupported"),
        ("MOE_SERVE_MARKERS", "off", set(), "off"),
    ],
)
def test_the_operator_says_which_layers_are_timed(
    name: str,
    value: str,
    timed: set[int],
    state: str,
    served: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    step(served(), 1)
    (record,) = read_records(tmp_path / "records")

    assert {key.layer for key in record.totals if key.kind is SlotKind.KERNEL} == timed
    assert record.proof.markers.state == state
    assert bool(record.proof.markers.reason) is (state != "on")
    assert {key.kind for key in record.totals} >= {SlotKind.STEP, SlotKind.SCHEDULE}


def test_a_version_that_says_nothing_lacks_in_the_proof_and_does_not_stop_a_start(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown() -> None:
        raise UnknownVllm("0.1.dev1: which vLLM is this?")

    monkeypatch.setattr("moe_serve.vllm_plugin.shape.versions", unknown)
    served()
    (record,) = read_records(tmp_path / "records")
    assert record.proof.vllm is None
    assert "the proof lacks the versions" in caplog.text


def test_a_proof_that_cannot_be_written_is_said_once_and_serving_goes_on(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = served()

    def full(*_: Any) -> None:
        raise RecordError("the proof has no room")

    monkeypatch.setattr(RecordWriter, "prove", full)
    worker.compile_or_warm_up_model()
    worker.compile_or_warm_up_model()
    step(worker, 1)
    assert caplog.text.count("the proof cannot be written") == 1


def test_under_ray_no_step_is_seen_and_markers_say_so(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = doctored.make_worker

    def under_ray(*args: Any, **kwargs: Any) -> Any:
        worker = make(*args, **kwargs)
        worker.vllm_config.parallel_config = SimpleNamespace(distributed_executor_backend="ray")
        return worker

    monkeypatch.setattr(doctored, "make_worker", under_ray)
    served()
    (record,) = read_records(tmp_path / "records")
    assert record.proof.markers.state == "unsupported"
    assert "Ray" in record.proof.markers.reason


def test_context_parallel_ranks_have_files_of_their_own() -> None:
    worker = SimpleNamespace(
        rank=5,
        parallel_config=SimpleNamespace(
            tensor_parallel_size=2,
            pipeline_parallel_size=2,
            prefill_context_parallel_size=2,
            data_parallel_rank=1,
        ),
    )
    assert rank_of(worker) == Rank(dp=1, pp=1, tp=1)


def test_markers_that_fail_are_off_and_serving_goes_on(
    served: Any,
    received: doctored.Received,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = served()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(host.HostMarkers, "stop", fail)
    step(worker, 1)
    step(worker, 1)
    (record,) = read_records(tmp_path / "records")

    assert len(received) == 8
    assert record.telemetry_failed
    assert record.proof.markers.state == "failed"
    assert record.proof.markers.reason == "RuntimeError: the device is gone"
    assert caplog.text.count("the device is gone") == 1
    assert {key.kind for key in record.totals} == {SlotKind.STEP, SlotKind.SCHEDULE}


def test_markers_over_their_budget_count_no_more(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "JUDGED_STEPS", 4)
    monkeypatch.setenv("MOE_SERVE_MARKER_BUDGET", "0")
    worker = served()
    for _ in range(8):
        step(worker, 1)
    (record,) = read_records(tmp_path / "records")

    assert record.proof.markers.state == "over_budget"
    assert record.proof.markers.overhead_ratio > 0
    assert "the budget is 0.00%" in record.proof.markers.reason
    kernels = [t.count for k, t in record.totals.items() if k.kind is SlotKind.KERNEL]
    assert kernels == [5, 5, 5]


def test_a_vllm_with_other_insides_serves_without_markers(
    served: Any, received: doctored.Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(doctored.MoeRunner, "_forward_impl")
    served()
    (record,) = read_records(tmp_path / "records")

    assert record.proof.markers.state == "failed"
    assert "_forward_impl" in record.proof.markers.reason


def test_unregistering_puts_the_layers_back(served: Any) -> None:
    worker = served()
    runner = worker.layers["model.layers.4.mlp"]
    wrapped = "_forward_impl" in vars(runner)
    plugin.unregister()

    assert wrapped
    assert "_forward_impl" not in vars(runner)


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

    assert sent(received) == (192, 128)
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
        os._exit(0 if sent(received) == (192, 128) else 1)
    _, status = os.waitpid(pid, 0)

    parent, child = read_records(tmp_path / "records")
    assert os.waitstatus_to_exitcode(status) == 0
    assert (parent.alive, child.alive) == (True, False)
    assert (parent.proof.intercepted_calls, child.proof.intercepted_calls) == (0, 1)


@pytest.mark.parametrize("ksplit", [None, "1"])
def test_an_aiter_that_may_end_splits_with_gelu_is_refused_unless_splits_are_forbidden(
    ksplit: str | None,
    experts: ModuleType,
    received: doctored.Received,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "site" / "aiter" / "fused_moe.py").write_text("def fused_moe(): ...\n")
    if ksplit is None:
        plugin.register()
        with pytest.raises(PaddingUnsafe, match="aiter#2960"):
            call(experts)
        return
    monkeypatch.setenv("AITER_KSPLIT", ksplit)
    plugin.register()
    call(experts)

    assert sent(received) == (192, 192)


def test_the_proof_holds_the_doubt_the_splits_and_the_sites_tables(
    experts: ModuleType,
    received: doctored.Received,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AITER_KSPLIT", "1")
    monkeypatch.setenv("AITER_CONFIG_FMOE", str(tmp_path / "no-such.csv"))
    plugin.register()
    load(sys.modules["vllm.v1.worker.gpu_worker"])
    call(experts)

    (record,) = read_records(tmp_path / "records")
    (proof,) = record.proof.shapes
    assert (proof.safe, proof.verified, proof.ksplit) == (True, False, 1)
    assert len(proof.tables_digest) == 64
    assert any("no-such.csv cannot be read" in reason for reason in proof.unverified)


@pytest.mark.parametrize("alias", ["rocm_aiter_fused_experts", "fused_experts"])
def test_a_module_that_took_the_function_by_name_gets_the_wrapped_one(
    alias: str,
    experts: ModuleType,
    received: doctored.Received,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the module is called, and under whatever name it holds the function."""
    original = experts.rocm_aiter_fused_experts
    importer = ModuleType("vllm.models.of_a_release_to_come.amd.model")
    setattr(importer, alias, original)
    monkeypatch.setitem(sys.modules, importer.__name__, importer)
    plugin.register()

    assert getattr(importer, alias) is experts.rocm_aiter_fused_experts
    assert getattr(importer, alias) is not original
    plugin.unregister()
    assert getattr(importer, alias) is experts.rocm_aiter_fused_experts is original


def test_every_refusal_is_an_error_of_this_project() -> None:
    assert issubclass(PaddingUnsafe, MoeServeError)
    assert issubclass(UnknownVllm, MoeServeError)
