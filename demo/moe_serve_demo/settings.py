"""What a run of the demo is told, and the plan of its measurement."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve_demo.measure import MeasurementPlan
from moe_serve_demo.scenarios import Chapter

# Fixed before anything is measured: twelve crossover pairs, then a look after each, up to 40.
PLAN = MeasurementPlan(
    blocks=80,
    first_look=12,
    block_seconds=3.5,
    settle_seconds=0.3,
    warm_up_seconds=5.0,
    min_count=2,
)
PROMPT_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """One run: which chapters, where its files go, and what it runs on.

    `environment` is handed to the servers, below the variables that the demo sets.
    """

    chapters: tuple[Chapter, ...]
    report: Path
    cache: Path
    vllm_python: Path
    port: int
    keep: bool
    environment: Mapping[str, str]
    plan: MeasurementPlan = PLAN
