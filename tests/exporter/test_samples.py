"""From a record to samples: each figure traced by hand."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.exporter import samples as module
from moe_serve.exporter.collector import Collector
from moe_serve.exporter.roofline import peaks_of
from moe_serve.exporter.sources import Sources
from moe_serve.metrics.catalogue import EXPORTER, MetricType
from moe_serve.metrics.exposition import OPENMETRICS, render
from moe_serve.metrics.samples import Samples
from moe_serve.telemetry.record import (
    BatchPhase,
    GraphMode,
    ModelRole,
    Rank,
    Record,
    RecordWriter,
    SlotKey,
    SlotKind,
    read_records,
)
from moe_serve.telemetry.slots import OVERFLOW
from tests.exporter import workers
from tests.testing import proofs

RANK = "dp0-pp0-tp0"


def one(samples: Samples, name: str, *labels: str) -> float:
    return samples.values[name][RANK, *labels]


def test_every_figure_of_a_served_graph(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    found = workers.collected(tmp_path)
    writer.close()

    graph = ("64", "full", "decode")
    assert one(found, "kernel_seconds_total", "0", *graph, "target") == pytest.approx(0.003)
    assert one(found, "kernel_invocations_total", "35", *graph, "target") == 10
    assert one(found, "forward_window_seconds_total", *graph) == pytest.approx(0.05)
    assert one(found, "forward_windows_total", *graph) == 10
    assert one(found, "kernel_tokens_total", "full", "decode") == 2 * 640
    assert one(found, "tokens_total", "decode", "scheduled") == 500
    assert one(found, "tokens_total", "decode", "computed") == 640
    assert one(found, "steps_total", "decode") == 10
    assert one(found, "step_seconds_total", "+Inf", "mixed") == pytest.approx(0.07)
    assert one(found, "kernel_max_seconds", "35") == pytest.approx(0.0003)
    histogram = found.histograms["kernel_duration_seconds"][RANK, "full", "decode"]
    assert (sum(histogram.counts), histogram.sum) == (20, pytest.approx(0.006))
    assert one(found, "padding_active") == 1
    assert one(found, "padding_lossy") == 0
    assert one(found, "instrumentation_state", "on") == 1
    assert one(found, "instrumentation_state", "failed") == 0
    assert one(found, "source_up") == 1
    assert (RANK, "2880") not in found.values["config_info"]
    (call,) = found.values["config_info"]
    assert call[1:] == (
        "aligned", "cktile", "w4a16", "2880", "2880", "3072", "3072", "0", "128",
        "0123456789abcdef",
    )  # fmt: skip


def test_the_modelled_work_is_what_the_sizes_say(tmp_path: Path) -> None:
    workers.worker(tmp_path).close()
    found = workers.collected(tmp_path)

    calls = 20
    flops = 6 * 64 * 4 * 2880 * 2880
    reached = 128 * (1 - (1 - 4 / 128) ** 64)
    weights = reached * 3 * 2880 * 2880 * 4.25 / 8
    activations = 2 * (2 * 64 * 2880 + 2 * 64 * 4 * 2880)
    assert one(found, "kernel_flops_total", "unpadded") == pytest.approx(calls * flops)
    assert one(found, "kernel_flops_total", "executed") == pytest.approx(calls * flops * 1.09)
    assert one(found, "kernel_bytes_total", "unpadded") == pytest.approx(
        calls * (weights + activations)
    )
    floor = calls * (weights + activations) / 8e12
    assert one(found, "kernel_roofline_seconds_total", "unpadded") == pytest.approx(floor)
    assert one(found, "padding_waste_ratio", "flops") == pytest.approx(1 - 1 / 1.09)
    # A modelled traffic above the peak would be a lie: 300 us is above the 185 us floor.
    assert one(found, "kernel_bytes_total", "executed") / (calls * 300e-6) < 1.05 * 8e12


def test_one_row_reads_its_own_experts_not_all(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    writer.add(
        SlotKey(
            kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=1, layer=0
        ),
        30_000,
        tokens=1,
    )
    writer.prove(proofs.proof())
    found = workers.collected(tmp_path)
    writer.close()

    one_expert = 3 * 2880 * 2880 * 4.25 / 8
    assert one(found, "kernel_bytes_total", "unpadded") == pytest.approx(4 * one_expert, rel=0.01)


def test_an_unknown_device_has_no_roofline_and_no_zero(tmp_path: Path) -> None:
    workers.worker(tmp_path, device=proofs.device(type="cpu", name=None, clock_hertz=10**9)).close()
    found = workers.collected(tmp_path)

    for name in ("peak_flops", "kernel_roofline_seconds_total"):
        assert not found.values[name]
    assert one(found, "kernel_flops_total", "unpadded") > 0


def test_lossy_pads_are_said(tmp_path: Path) -> None:
    lossy = proofs.shape(lost_neurons=104, loss_fraction=104 / 360, live_neurons=360, safe=True)
    workers.worker(tmp_path, shapes=[lossy], max_neuron_loss=0.3).close()
    found = workers.collected(tmp_path)

    assert one(found, "padding_lossy") == 1
    assert one(found, "padding_lost_neurons") == 104
    assert one(found, "padding_live_neurons") == 360
    assert one(found, "padding_max_neuron_loss_ratio") == 0.3


@pytest.mark.parametrize(("verified", "told"), [(True, 1), (False, 0)])
def test_a_release_that_was_not_read_is_served_and_exported(
    verified: bool, told: int, tmp_path: Path
) -> None:
    workers.worker(tmp_path, shapes=[proofs.shape(verified=verified)]).close()

    assert one(workers.collected(tmp_path), "padding_verified") == told


@pytest.mark.parametrize(
    "changes",
    [
        {"fault": "vLLM is not known"},
        {"intercepted_calls": 0},
        {"shapes": [proofs.shape(safe=False)]},
        {"shapes": [{"safe": True}]},
        {"shapes": "none"},
        {"version": 7},
    ],
)
def test_padding_is_active_with_proof_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    proofs.write_json(writer, **changes)
    found = workers.collected(tmp_path)
    writer.close()

    assert one(found, "padding_active") == 0


def test_halves_of_a_step_are_added_and_a_drafter_stands_apart(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    for ubatch, model in ((0, ModelRole.TARGET), (1, ModelRole.TARGET), (0, ModelRole.DRAFT)):
        key = SlotKey(
            kind=SlotKind.KERNEL, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=8, layer=0,
            ubatch=ubatch, model=model,
        )  # fmt: skip
        writer.add(key, 1000, tokens=8)
    writer.prove(proofs.proof())
    found = workers.collected(tmp_path)
    writer.close()

    graph = ("0", "8", "full", "decode")
    assert one(found, "kernel_invocations_total", *graph, "target") == 2
    assert one(found, "kernel_invocations_total", *graph, "draft") == 1
    assert one(found, "kernel_tokens_total", "full", "decode") == 16


def test_totals_that_the_worker_gave_up_are_said(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    writer.fail()
    found = workers.collected(tmp_path)
    writer.close()

    assert one(found, "instrumentation_state", "on") == 0
    assert one(found, "instrumentation_state", "failed") == 1


@pytest.mark.parametrize("device", ["NVIDIA GH200 480GB", "NVIDIA H200 NVL", "cpu", ""])
def test_a_name_that_only_holds_a_known_devices_is_unknown(device: str) -> None:
    assert peaks_of(device) is None


@pytest.mark.parametrize("device", ["AMD Instinct MI355X", "AMD_Instinct_MI300X", "NVIDIA H200"])
def test_a_known_device_has_peaks(device: str) -> None:
    assert peaks_of(device) is not None


KEYS = st.builds(
    SlotKey,
    kind=st.sampled_from([SlotKind.KERNEL, SlotKind.WINDOW, SlotKind.STEP]),
    mode=st.sampled_from(GraphMode),
    phase=st.sampled_from(BatchPhase),
    bucket=st.sampled_from([1, 64, 128, OVERFLOW]),
    layer=st.sampled_from([0, 35]),
    ubatch=st.integers(0, 1),
    model=st.sampled_from(ModelRole),
)
UPDATES = st.tuples(KEYS, st.integers(-5, 10**9), st.integers(0, 20_000))


@settings(deadline=None, max_examples=30)
@given(rounds=st.lists(st.lists(UPDATES, max_size=8), min_size=2, max_size=4))
def test_no_counter_ever_falls(rounds: list[list[tuple[SlotKey, int, int]]]) -> None:
    with TemporaryDirectory() as name:
        writer = workers.worker(Path(name))
        exporter = Collector(Sources(Path(name), ttl=60))
        before = counters(exporter.collect())
        for updates in rounds:
            for key, ticks, tokens in updates:
                writer.add(key, ticks, tokens=tokens)
                writer.stepped(BatchPhase.MIXED, tokens)
            after = counters(exporter.collect())
            assert all(after[series] >= value for series, value in before.items())
            before = after
        writer.close()


def counters(samples: Samples) -> dict[tuple[str, ...], float]:
    """Every series that may only rise, a histogram's among them."""
    found = {
        (name, *labels): value
        for name, series in samples.values.items()
        if EXPORTER[name].type is MetricType.COUNTER
        for labels, value in series.items()
    }
    for name, series in samples.histograms.items():
        for labels, each in series.items():
            found[name, *labels, "sum"] = each.sum
            found |= {(name, *labels, bound): value for bound, value in each.buckets()}
    return found


def test_a_worker_that_does_all_has_every_metric_of_the_catalogue(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path, markers=proofs.markers(overhead_ratio=0.001))
    (tmp_path / "x.record").write_text("hello")
    found = workers.collected(tmp_path)
    writer.close()

    told = {name for name, series in [*found.values.items(), *found.histograms.items()] if series}
    assert told == set(EXPORTER)


def test_a_clock_that_went_backwards_is_counted(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    writer.add(workers.KERNEL, -5, tokens=64)
    found = workers.collected(tmp_path)
    writer.close()

    assert one(found, "invalid_samples_total", "clock_backwards") == 1
    assert one(found, "kernel_tokens_total", "full", "decode") == 2 * 640


NUMBERS = st.integers(0, 2**63 - 1)
RATIOS = st.floats(0, 1e18, exclude_max=True) | st.sampled_from([5e-324, 1e-300])
SHAPES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("hidden", "live_neurons", "experts", "all_experts", "top_k", "lost_neurons"), NUMBERS
        ),
        **dict.fromkeys(("loss_fraction", "bytes_ratio"), RATIOS),
        "padded": st.fixed_dictionaries({"hidden": NUMBERS, "intermediate": NUMBERS}),
        "quant": st.sampled_from(["w4a16", "w4a4", "other", ""]),
    },
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    folder = tmp_path_factory.mktemp("records")
    workers.worker(folder).close()
    return read_records(folder)[0]


@given(changes=st.lists(SHAPES, max_size=2))
def test_samples_of_any_sizes_are_finite_numbers(
    record: Record, changes: list[dict[str, Any]]
) -> None:
    proof = proofs.proof(shapes=[proofs.shape(**each) for each in changes])
    samples = Samples(EXPORTER)
    module.add_totals(samples, record)
    module.add_roofline(samples, record, proof)
    module.add_proof(samples, record, proof)
    render(samples, OPENMETRICS)

    assert samples.values["kernel_seconds_total"]
    for name, series in samples.values.items():
        for labels, value in series.items():
            assert len(labels) == len(EXPORTER[name].labels)
            assert math.isfinite(value)
            assert value >= 0


def test_a_bad_proof_is_counted_and_the_totals_are_told(tmp_path: Path) -> None:
    writer = workers.worker(tmp_path)
    proofs.write_json(writer, max_neuron_loss="some")
    exporter = Collector(Sources(tmp_path, ttl=60))
    exporter.collect()
    found = exporter.collect()
    writer.close()

    assert found.values["source_errors_total"]["proof",] == 2
    assert found.values["exporter_scrape_errors_total"][()] == 2
    assert one(found, "steps_total", "decode") == 10
    assert not found.values["marker_pair_seconds"]
    assert not found.values["instrumentation_state"]


def test_series_stay_below_the_bound_that_the_configuration_gives(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, Rank())
    proof = proofs.proof(layers={"moe": 36, "sampled": [0, 1, 34, 35]})
    assert proof.graphs is not None
    for bucket in proof.graphs.sizes:
        for mode, phase in (
            (GraphMode.FULL, BatchPhase.DECODE),
            (GraphMode.PIECEWISE, BatchPhase.ANY),
        ):
            _fill(writer, mode, phase, bucket)
    for phase in (BatchPhase.DECODE, BatchPhase.MIXED):
        for bucket in module.EAGER_BUCKETS:
            _fill(writer, GraphMode.EAGER, phase, bucket)
            writer.add(
                SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=phase, bucket=bucket), 1
            )
        writer.stepped(phase, 1)
    writer.prove(proof)
    found = workers.collected(tmp_path)
    writer.close()

    series = found.values["exporter_series"][()]
    bound = found.values["exporter_series_bound"][()]
    assert 0.9 * bound < series <= bound


def _fill(writer: RecordWriter, mode: GraphMode, phase: BatchPhase, bucket: int) -> None:
    for layer in (0, 1, 34, 35):
        key = SlotKey(kind=SlotKind.KERNEL, mode=mode, phase=phase, bucket=bucket, layer=layer)
        writer.add(key, 1, tokens=bucket)
    writer.add(SlotKey(kind=SlotKind.WINDOW, mode=mode, phase=phase, bucket=bucket), 1)
