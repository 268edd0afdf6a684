"""What one verdict costs: 12 hours of 8 pods, 90 cells, scraped every 15 s, already in memory.

python -m benchmarks.judge_cost --output benchmarks/results/judge_cost.json
"""

import argparse
import json
import platform
import resource
import time
from pathlib import Path

from moe_serve.analysis.comparison import examine
from moe_serve.analysis.noise import PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.quality.result import NoQuality
from moe_serve.sources.assemble import ArmSelector, QuerySource, assemble
from tests.testing.histories import START, Fleet, streams

PODS, HOURS, SIZES = 8, 12.0, 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    fleet = Fleet(pods=PODS // 2, hours=HOURS, buckets=range(1, SIZES + 1))
    made = streams(fleet)
    began = time.process_time()
    way = QuerySource(source="memory", build_query=lambda names, _start, _end: "|".join(names))
    history = assemble(made, ArmSelector(), START, START + HOURS * 3600, "memory", way)
    rules = AnalysisPlan(pod_variation=PodVariation(), under_test=("policy",))
    found = examine(history, rules, NoQuality(reason="none"))
    document = {
        "pods": PODS,
        "hours": HOURS,
        "cells": len(history.cells),
        "blocks": found.blocks,
        "cpu_seconds": round(time.process_time() - began, 2),
        "peak_mib": round(_peak_mib()),
        "python": platform.python_version(),
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(json.dumps(document))


def _peak_mib() -> float:
    """Of the whole process so far, the samples included; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
