"""Which of vLLM's arguments decide the pads, however they are spelt."""

import pytest

from moe_serve.errors import UsageError
from moe_serve.padding.shapes import Parallelism
from moe_serve.preflight.arguments import EngineArguments, read_arguments

MODEL = "openai/gpt-oss-120b"


@pytest.mark.parametrize(
    ("line", "parallel"),
    [
        ("", Parallelism()),
        ("--tensor-parallel-size 8", Parallelism(tp=8)),
        ("--tensor-parallel-size=8", Parallelism(tp=8)),
        ("--tensor_parallel_size 8", Parallelism(tp=8)),
        ("--tensor-parallel 8", Parallelism(tp=8)),
        ("-tp 8", Parallelism(tp=8)),
        ("-tp=8", Parallelism(tp=8)),
        ("-tp 2 --max-num-seqs 8 -tp 4", Parallelism(tp=4)),
        ("-dp 8 --enable-expert-parallel", Parallelism(dp=8, ep=True)),
        ("--data-parallel-size 2 -tp 4 -ep", Parallelism(tp=4, dp=2, ep=True)),
        ("--data-parallel-size-local 4 --data-parallel-rank 1", Parallelism()),
        ("--enable-expert-parallel --no-enable-expert-parallel", Parallelism()),
        ("--enable-eplb --enable-prefix-caching", Parallelism()),
    ],
)
def test_parallel_sizes_are_read_as_vllm_reads_them(line: str, parallel: Parallelism) -> None:
    assert read_arguments([MODEL, *line.split()]).parallel == parallel


def test_all_else_is_kept_in_its_order() -> None:
    line = ["--port", "8000", "-cc.pass_config.fuse_rope_kvcache=True", "--block-size=64"]

    assert read_arguments([MODEL, *line]) == EngineArguments(
        model=MODEL, parallel=Parallelism(), rest=tuple(line)
    )


@pytest.mark.parametrize("spelt", [["--model", MODEL], [f"--model={MODEL}"]])
def test_the_model_may_be_a_flag(spelt: list[str]) -> None:
    found = read_arguments(["-tp", "2", *spelt, "--port", "8000"])

    assert (found.model, found.rest) == (MODEL, ("-tp", "2", "--port", "8000"))


def test_the_moe_backend_is_read() -> None:
    assert read_arguments([MODEL, "--moe-backend", "AITER"]).moe_backend == "aiter"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "MODEL: missing"),
        (["-tp", "8"], "MODEL: missing"),
        ([MODEL, "-tp"], "--tensor-parallel-size: its value is missing"),
        ([MODEL, "-tp", "eight"], "--tensor-parallel-size 'eight'"),
        ([MODEL, "-dp=0"], "--data-parallel-size '0'"),
    ],
)
def test_what_cannot_be_read_is_one_line(words: list[str], named: str) -> None:
    with pytest.raises(UsageError, match="^" + named):
        read_arguments(words)
