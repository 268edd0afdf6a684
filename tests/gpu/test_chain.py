"""From an exporter's text to a verdict and a report: the chain's own part, without a GPU."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("scipy")

from moe_serve_demo.evidence import ArmFacts
from moe_serve_demo.exporter import parse

from moe_serve.analysis.series import Placement, delta, paired_block
from moe_serve.analysis.verdict import Verdict
from tools.gpu import goals, place
from tools.gpu.stages import chain

STEP, PAIR = 6e-3, 2e-4


def exported(steps: int, gain: float) -> Any:
    """What an exporter says after so many decode steps at each loaded batch size."""
    lines = [
        'moe_serve_source_start_timestamp_seconds{rank="0"} 1000',
        'moe_serve_graph_recaptures{rank="0"} 0',
    ]
    for batch in (*chain.BATCHES, 8):
        at = f'rank="0",bucket="{batch}",mode="full",phase="decode"'
        lines += [
            f"moe_serve_forward_windows_total{{{at}}} {steps}",
            f"moe_serve_forward_window_seconds_total{{{at}}} {steps * STEP / gain}",
        ]
        for layer in (0, 23):
            of = f'{at},layer="{layer}",role="target"'
            lines += [
                f"moe_serve_kernel_invocations_total{{{of}}} {steps}",
                f"moe_serve_kernel_seconds_total{{{of}}} {steps * PAIR / gain}",
            ]
        lines.append(f'moe_serve_forward_windows_total{{rank="0",bucket="{batch}",mode="eager"}} 3')
    return chain.Reading(parse("\n".join(lines) + "\n"))


def blocks(gain: float) -> tuple[Any, ...]:
    """A run's blocks whose canary is faster by `gain`, give or take a little noise."""
    found = []
    for index in range(2 * goals.PAIRS):
        noise = 1 + 0.001 * ((index * 7) % 5 - 2)
        found.append(
            paired_block(
                index=index,
                start_seconds=2.0 * index,
                placement=(Placement.AB, Placement.BA)[index % 2],
                stable=delta(exported(100, 1.0), exported(200, 1.0)),
                canary=delta(exported(100, gain * noise), exported(200, gain * noise)),
            )
        )
    return tuple(found)


def facts(name: str, policy: str, ratio: float) -> ArmFacts:
    """An arm's proof."""
    return ArmFacts(
        name=name,
        policy=policy,
        max_neuron_loss=0.0,
        vllm="0.26.0",
        aiter="0.1.16",
        raw="192/192",
        upstream="128/384",
        sent="0/0",
        lost_neurons=0,
        live_neurons=2880,
        bytes_ratio=ratio,
        safe=True,
        intercepted_calls=8,
    )


def answers(outcome: str) -> dict[str, Any]:
    """A comparison of answers as `moe-serve quality probe` prints it."""
    number = 0.0005 if outcome == "passed" else 0.5
    return {
        "mode": "identical",
        "outcome": outcome,
        "reason": "as asked",
        "number": number,
        "allowed": 0.005,
        "rounds": 1,
        "requests_an_arm": 64,
        "budget": {},
        "cells": [],
    }


@pytest.mark.parametrize(
    ("gain", "outcome", "verdict"),
    [
        (1.08, "passed", Verdict.PROMOTE),
        (1.12, "failed", Verdict.ROLLBACK),
        (1.00, "passed", Verdict.ROLLBACK),
    ],
)
def test_verdict_follows_gain_and_answers(gain: float, outcome: str, verdict: Verdict) -> None:
    """Faster with the same answers is promoted; wrong answers or no gain are not."""
    known = {
        "stable": facts("stable", "zero", 1.138),
        "aligned": facts("aligned", "aligned", 1.022),
    }
    found = chain.outcome("aligned", known, blocks(gain), answers(outcome))

    assert found.judgement.verdict is verdict
    assert chain.speedup(found.kernel)["speedup"] == pytest.approx(gain, rel=0.002)
    assert chain.speedup(found.step)["speedup"] == pytest.approx(gain, rel=0.002)


def test_only_full_decode_graphs_of_loaded_sizes_are_read() -> None:
    """Other batch sizes, eager and mixed batches are no cells of the comparison."""
    cells = exported(10, 1.0).totals
    assert {cell.bucket for cell in cells} == set(chain.BATCHES)
    assert {cell.mode for cell in cells} == {"full"}


def test_report_is_written_with_the_machine_and_every_chapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page, summary and verdicts lie in the work folder, and no path of the machine in them."""
    torch = ModuleType("torch")
    device = SimpleNamespace(name="NVIDIA H200", total_memory=140 << 30)
    torch.cuda = SimpleNamespace(get_device_properties=lambda _: device)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(place, "WORK", tmp_path)
    known = {"stable": facts("stable", "zero", 1.138), "aligned": facts("a", "aligned", 1.022)}
    chapter = chain.outcome("aligned", known, blocks(1.08), answers("passed"))

    page = chain.report({"aligned": chapter}, known, {"aligned": {}}, [f"vllm {tmp_path}/model"])

    text = page.read_text("utf-8")
    assert "NVIDIA H200" in text
    assert str(tmp_path) not in text
    assert (page.parent / "verdicts.json").exists()
