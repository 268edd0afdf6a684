"""What `quality probe --output json` writes, by its own classes, for a known outcome."""

import math
from typing import Any

from moe_serve.probe.run import GateResult
from moe_serve.quality.cells import ProbeCell, ProbePath
from moe_serve.quality.identical import IdenticalResult, ProbeCellResult, ProbePlan
from moe_serve.quality.noninferior import TaskPlan, TaskResult, decide
from moe_serve.quality.result import NoQuality, QualityOutcome
from tests.testing.histories import Fleet

Told = dict[str, str]
Facts = tuple[Told | None, Told | None]
_CELLS = tuple(ProbeCell(path, 4) for path in ProbePath)


def facts() -> tuple[Told, Told]:
    """What the usual fleet's pods say, stable's and the canary's."""
    made = Fleet()
    stable, canary = (
        {"policy": policy, "worker_config_digest": digest, "vllm": version}
        for policy, digest, version in zip(made.policies, made.digests, made.versions, strict=True)
    )
    return stable, canary


def probed(outcome: QualityOutcome, *, known: Facts | None = None) -> Any:
    """The document; `known` is what both arms' exporters told, of the usual fleet by default."""
    apart = 0.001 if outcome is QualityOutcome.PASSED else 0.02
    cells = tuple(
        ProbeCellResult(
            cell=cell, prompts=64, tokens=2048, asked=64, answered=64, excess=apart,
            lower=apart / 2, upper=apart * 1.5, floor=0.0, top1_drop=0.0, top1_lower=-math.inf,
            broken=(), stable_broken=(), missing=(),
        )
        for cell in _CELLS
    )  # fmt: skip
    gate = GateResult(
        result=IdenticalResult(
            outcome=outcome,
            reason=f"answers {outcome.value}",
            plan=ProbePlan(cells=_CELLS, rounds=8),
            rounds=1,
            cells=cells,
        ),
        drift=NoQuality(reason="no counters"),
        details=_details("identical", 0.005, known) | {"alpha": 0.01},
    )
    return gate.to_json()


def examined(*, items: int, margin: float) -> Any:
    """The document of a task that the canary passed, with as many right answers as the gold."""
    gold = {f"{n}": n % 10 != 0 for n in range(items)}
    bad = {f"{n}": n % 2 != 0 for n in range(items)}
    result = decide(TaskPlan(task="t", items=items, margin=margin), gold, gold, known_bad=bad)
    assert isinstance(result, TaskResult)
    drift = NoQuality(reason="no counters")
    details = _details("non-inferior", margin, None)
    return GateResult(result=result, drift=drift, details=details).to_json()


def _details(mode: str, allowed: float, known: Facts | None) -> dict[str, Any]:
    return {
        "at": 1_780_000_000.0,
        "arms": {
            arm: {
                "url": f"http://{arm}:8000",
                "model": "gpt-oss-120b",
                "exporter": f"http://{arm}:9400/metrics" if told else None,
                "facts": told,
            }
            for arm, told in zip(("stable", "canary"), known or facts(), strict=True)
        },
        "mode": mode,
        "allowed": allowed,
        "reference": {"source": "gold", "model": "gpt-oss-120b", "digest": "ab12"},
        "seconds": 12.5,
        "requests_an_arm": 128,
        "traffic": None,
    }
