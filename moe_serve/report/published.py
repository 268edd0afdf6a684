"""The published ratios of vLLM's pull request 42098 for GPT-OSS-120B on one MI355X at TP=1.

Tokens/s per GPU before and after: a benchmark's throughput by concurrency, not a step's rate by
batch size. GSM8K accuracy went from 95.0 to 94.92 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_TOKENS_PER_SECOND: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "1k1k": {
        4: (1650, 1727),
        8: (2598, 2843),
        16: (4271, 4737),
        32: (6866, 7812),
        64: (10431, 12051),
    },
    "8k1k": {
        4: (6917, 6830),
        8: (10388, 10985),
        16: (15243, 16348),
        32: (22147, 23618),
        64: (30309, 31564),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published ratio, log(after / before); `workload` names input and output lengths."""

    workload: str
    concurrency: int
    log_ratio: float


CLAIM = tuple(
    Published(workload=workload, concurrency=concurrency, log_ratio=math.log(after / before))
    for workload, rows in _TOKENS_PER_SECOND.items()
    for concurrency, (before, after) in rows.items()
)
