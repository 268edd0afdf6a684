"""The shortest length that a benchmark asks for is the share of the nominal one, exactly."""

import pytest

from moe_serve.benchmark.load.plan import Turn, Workload, requests
from moe_serve.benchmark.results import BenchmarkArm, BenchmarkCell, Shape


@pytest.mark.parametrize(("ratio", "shortest"), [(0.55, 55), (0.07, 7), (0.8, 80), (0.555, 56)])
def test_shortest_length_is_the_share_of_the_nominal_one(ratio: float, shortest: int) -> None:
    cell = BenchmarkCell(shape=Shape(input_tokens=100, output_tokens=100), concurrency=64)
    load = Workload(cells=(cell,), pairs=1, range_ratio=ratio, prompts_per_slot=100)
    asked = requests(load, Turn(pair=1, arm=BenchmarkArm.STABLE, cell=cell))
    assert min(len(one.prompt) for one in asked) == shortest
    assert min(one.output_tokens for one in asked) == shortest
