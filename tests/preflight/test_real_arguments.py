"""The few flags that are read here mean the same to real vLLM."""

import pytest

from moe_serve.preflight.arguments import read_arguments

pytestmark = pytest.mark.vllm

LINES = (
    "",
    "--tensor-parallel-size 8",
    "--tensor_parallel_size=8 -tp 2",
    "--tens 8",
    "-tp=8",
    "--data-parallel-size 2 -ep",
    "-dp 2 --enable-ex",
    "--enable-expert-parallel --no-enable-ex",
    "--moe-backend AITER",
    "--moe-b aiter",
)


@pytest.mark.filterwarnings("ignore")
def test_real_vllm_reads_the_same() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    theirs, ours = {}, {}
    for line in LINES:
        args = parser.parse_args(["--model", "m", *line.split()])
        theirs[line] = (
            args.model, args.tensor_parallel_size, args.data_parallel_size,
            bool(args.enable_expert_parallel), args.moe_backend,
        )  # fmt: skip
        read = read_arguments(["--model", "m", *line.split()])
        ours[line] = (
            read.model, read.parallel.tp, read.parallel.dp, read.parallel.ep, read.moe_backend
        )  # fmt: skip

    assert ours == theirs
