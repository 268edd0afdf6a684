"""From exporters' samples to a verdict and a report: the chain's own part, without a GPU."""

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("scipy")

from moe_serve.analysis.history import History
from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.sources.assemble import ArmSelector, assemble
from moe_serve.sources.streams import Streams
from tests.testing.probed import probed
from tools.gpu import goals, place
from tools.gpu.stages import chain

STEP, PAIR, BEGUN = 6e-3, 2e-4, 1_780_000_000.0
FACTS = {"worker_config_digest": "0123456789abcdef", "vllm": "0.26.0"}


def history(gain: float) -> History:
    """Both arms' counters at every window's edge; the canary is faster by `gain`."""
    made = Streams()
    for arm, faster in (("stable", 1.0), ("canary", gain)):
        own = {"track": arm, "pod": f"{arm}-0", "rank": "0"}
        policy = "zero" if arm == "stable" else "aligned"
        series = {
            "moe_serve_source_start_timestamp_seconds": ({}, 1000.0, 0.0),
            "moe_serve_config_info": ({"policy": policy, **FACTS}, 1.0, 0.0),
            "moe_serve_padding_lost_neurons": ({}, 0.0, 0.0),
            "moe_serve_padding_live_neurons": ({}, 2880.0, 0.0),
        }
        for basis, ratio in (("unpadded", 1.0), ("executed", 1.022 if faster > 1 else 1.138)):
            name = "moe_serve_kernel_bytes_total"
            series[f"{name} {basis}"] = ({"basis": basis}, 0.0, 1e9 * ratio)
        for batch in (*chain.BATCHES, 8):
            at = {"bucket": str(batch), "mode": "full", "phase": "decode"}
            # What only happens at the edges of the load is no batch size that decides.
            steps = 64.0 if batch in chain.BATCHES else 1.0
            for kind, seconds, extra in (
                ("forward_window", STEP, {}),
                ("kernel", PAIR, {"layer": "0", "role": "target"}),
            ):
                count = "forward_windows_total" if extra == {} else "kernel_invocations_total"
                series[f"moe_serve_{count} {batch}"] = ({**at, **extra}, 0.0, steps)
                spent = steps * seconds / faster
                series[f"moe_serve_{kind}_seconds_total {batch}"] = ({**at, **extra}, 0.0, spent)
        for key, (labels, first, growth) in series.items():
            stream = made.add(f"{arm} {key}", key.split()[0], {**own, **labels})
            total = first
            for edge in range(2 * goals.BLOCKS + 1):
                noise = 1 + 0.001 * ((edge * 7) % 5 - 2) if "seconds_total" in key else 1.0
                total += growth * (noise if arm == "canary" else 1.0) if edge else 0.0
                stream.times.append(BEGUN + edge * goals.WINDOW_SECONDS)
                stream.values.append(total)
    end = BEGUN + 2 * goals.BLOCKS * goals.WINDOW_SECONDS
    return assemble(made, ArmSelector(), BEGUN, end, "memory")


def answers(seen: History, outcome: QualityOutcome) -> dict[str, Any]:
    """A comparison of these arms' answers, as `moe-serve quality probe` prints it."""
    found: dict[str, Any] = probed(outcome, known=(seen.stable.facts, seen.canary.facts))
    return found


@pytest.mark.parametrize(
    ("gain", "outcome", "verdict"),
    [
        (1.08, QualityOutcome.PASSED, Verdict.PROMOTE),
        (1.12, QualityOutcome.FAILED, Verdict.ROLLBACK),
        (1.00, QualityOutcome.PASSED, Verdict.ROLLBACK),
    ],
)
def test_verdict_follows_gain_and_answers(
    gain: float, outcome: QualityOutcome, verdict: Verdict
) -> None:
    """Faster with the same answers is promoted; wrong answers or no gain are not."""
    seen = history(gain)
    found = chain.judged(seen, answers(seen, outcome))

    assert found.judgement.verdict is verdict, found.judgement.reason
    assert chain.speedup(found.estimates.kernel)["speedup"] == pytest.approx(gain, rel=0.002)
    assert chain.speedup(found.estimates.step)["speedup"] == pytest.approx(gain, rel=0.002)


def test_byte_bound_is_that_of_the_exported_bytes() -> None:
    seen = history(1.08)
    found = chain.judged(seen, answers(seen, QualityOutcome.PASSED))
    assert found.observations.byte_bound == pytest.approx(math.log(1.138 / 1.022))


def test_report_is_written_with_the_machine_and_every_chapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page, summary and verdicts lie in the work folder, and no path of the machine in them."""
    torch = ModuleType("torch")
    device = SimpleNamespace(name="NVIDIA H200", total_memory=140 << 30)
    torch.cuda = SimpleNamespace(get_device_properties=lambda _: device)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(place, "WORK", tmp_path)
    seen = history(1.08)
    found = chain.judged(seen, answers(seen, QualityOutcome.PASSED))

    page = chain.report({"aligned": found}, {"aligned": seen}, [f"vllm {tmp_path}/model"])

    text = page.read_text("utf-8")
    assert "NVIDIA H200" in text
    assert str(tmp_path) not in text
    assert (page.parent / "verdicts.json").exists()
