"""What the plugin counts in real vLLM, against a witness that sees each step by itself.

The witness wraps `Worker.execute_model` outside of the plugin and notes how many tokens each
request brings. From that follows which graph, or which eager batch, every sampled layer must have
been counted in; the record has to hold exactly these calls, and none of warm-ups, captures and
dummy batches.
"""

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tools.gpu.stages import engines

SIZES = (1, 8, 64)
Seen = tuple[str, str, int]


class Witness:
    """Every served step as (tokens in all, most tokens of one request)."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the end of the block."""
        from vllm.v1.worker.gpu_worker import Worker

        inner = Worker.execute_model

        @functools.wraps(inner)
        def execute_model(worker: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            each = scheduler_output.num_scheduled_tokens
            if each:
                self.steps.append((sum(each.values()), max(each.values())))
            return inner(worker, scheduler_output, *args, **kwargs)

        Worker.execute_model = execute_model
        try:
            yield
        finally:
            Worker.execute_model = inner

    def expected(self, sizes: Sequence[int], *, width: int = 1, pieces: bool = False) -> Counter:
        """How often a sampled layer ran in each mode, phase and bucket.

        `width`: tokens of a request in decode; `pieces`: mixed batches go through graphs too.
        """
        return Counter(self._where(*step, sizes, width, pieces) for step in self.steps)

    def _where(
        self, tokens: int, most: int, sizes: Sequence[int], width: int, pieces: bool
    ) -> Seen:
        from moe_serve.telemetry.slots import eager_bucket

        fits = [size for size in sizes if size >= tokens]
        decode = most <= width
        if fits and decode:
            return ("FULL", "DECODE", min(fits))
        if fits and pieces:
            return ("PIECEWISE", "ANY", min(fits))
        return ("EAGER", "DECODE" if decode else "MIXED", eager_bucket(tokens))


def seen(before: Any, after: Any, model: str = "TARGET") -> dict[int, Counter]:
    """What the record counted meanwhile, by layer."""
    found: dict[int, Counter] = {}
    for key, total in after.totals.items():
        first = before.totals.get(key)
        growth = total.count - (first.count if first else 0)
        if growth and key.kind.name == "KERNEL" and key.model.name == model:
            where = (key.mode.name, key.phase.name, key.bucket)
            found.setdefault(key.layer, Counter())[where] += growth
    return found


def checked(what: str, before: Any, witness: Witness, **how: Any) -> dict[str, Any]:
    """Hold the record's growth against the witness; returns the counts.

    Raises:
        AssertionError: a count is not the witness's.
    """
    after = engines.record()
    wanted = witness.expected(how.pop("sizes", SIZES), **how)
    found = seen(before, after)
    engines.require(len(found) == 2, f"{what}: two sampled layers were to be counted", found)
    for layer, counted in found.items():
        engines.require(counted == wanted, f"{what}, layer {layer}: expected {wanted}", counted)
    invalid = sum(total.invalid for total in after.totals.values())
    engines.require(invalid == 0 and after.slots_torn == 0, f"{what}: invalid samples", invalid)
    return {"steps": len(witness.steps), "counts": {str(k): v for k, v in sorted(wanted.items())}}


def served(what: str, work: Any, **how: Any) -> dict[str, Any]:
    """Run `work` under a witness and check the record's growth."""
    before, witness = engines.record(), Witness()
    with witness.watching():
        work()
    return checked(what, before, witness, **how)


def worker() -> Any:
    """The engine's worker in this process."""
    from vllm.v1.worker.gpu_worker import Worker

    (found,) = engines.objects(Worker)
    return found


def counts() -> dict[str, Any]:
    """Decode, chunked prefill, prefix cache, dummy batches, and a second capture of the graphs."""
    os.environ["MOE_SERVE_PADDING"] = "aligned"
    found: dict[str, Any] = {}
    llm = engines.engine(
        "small",
        enable_prefix_caching=True,
        max_num_batched_tokens=256,
        compilation_config=engines.graphs(sizes=SIZES),
    )
    started = engines.record()
    nothing = [key for key, t in started.totals.items() if t.count and key.kind.name != "SCHEDULE"]
    engines.require(not nothing, "warm-up and capture are no served work", nothing)
    found["proof"] = engines.proof(started)
    engines.require(started.proof["markers"]["state"] == "on", "markers", found["proof"])
    found["decode"] = served(
        "decode", lambda: [engines.generate(llm, batch, new=24) for batch in (1, 5, 8, 40)]
    )
    found["chunked prefill"] = served(
        "chunked prefill", lambda: engines.generate(llm, 6, prompt=700, new=12, seed=3)
    )
    found["prefix cache"] = served(
        "prefix cache", lambda: engines.generate(llm, 6, prompt=700, new=12, seed=3)
    )
    here = worker()
    before = engines.record()
    for _ in range(5):
        here.execute_dummy_batch()
    dummy = seen(before, engines.record())
    engines.require(not dummy, "dummy batches are no served work", dummy)
    found["dummy batches"] = 5
    found["second capture"] = _captured_again(llm, here)
    found["async scheduling"] = bool(here.vllm_config.scheduler_config.async_scheduling)
    found["totals"] = engines.totals(engines.record())
    return found


def _captured_again(llm: Any, here: Any) -> dict[str, Any]:
    """Drop the graphs and capture them once more: a new generation, whose totals go on."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    before = engines.record()
    wrappers = engines.objects(CUDAGraphWrapper)
    for wrapper in wrappers:
        wrapper.concrete_cudagraph_entries.clear()
    here.compile_or_warm_up_model()
    after = engines.record()
    engines.require(not seen(before, after), "a second capture is no served work", after.totals)
    engines.require(after.recaptures == before.recaptures + 1, "recaptures", after.recaptures)
    return {"graphs": len(wrappers)} | served(
        "after a second capture", lambda: engines.generate(llm, 8, new=16, seed=5)
    )


def piecewise() -> dict[str, Any]:
    """FULL_AND_PIECEWISE with torch.compile: mixed batches are replayed in pieces."""
    os.environ["MOE_SERVE_PADDING"] = "aligned"
    sizes = (1, 8, 64, 256)
    llm = engines.engine(
        "small", compilation_config=engines.graphs("FULL_AND_PIECEWISE", sizes, compiled=True)
    )
    how = {"sizes": sizes, "pieces": True}
    return {
        "proof": engines.proof(engines.record()),
        "decode": served("decode", lambda: engines.generate(llm, 8, new=24), **how),
        "mixed": served(
            "mixed", lambda: engines.generate(llm, 5, prompt=150, new=12, seed=3), **how
        ),
        "totals": engines.totals(engines.record()),
    }


def second_runner() -> dict[str, Any]:
    """VLLM's second model runner, where its warm-up goes through `execute_model`."""
    os.environ |= {"MOE_SERVE_PADDING": "aligned", "VLLM_USE_V2_MODEL_RUNNER": "1"}
    llm = engines.engine("small", compilation_config=engines.graphs(sizes=SIZES))
    runner = type(worker().model_runner)
    started = engines.record()
    nothing = [key for key, t in started.totals.items() if t.count and key.kind.name != "SCHEDULE"]
    engines.require(not nothing, "warm-up and capture are no served work", nothing)
    return {
        "runner": f"{runner.__module__}.{runner.__name__}",
        "decode": served("decode", lambda: engines.generate(llm, 8, new=24)),
        "totals": engines.totals(engines.record()),
    }


def sleeping() -> dict[str, Any]:
    """Sleep (the weights leave the device) and wake: counting goes on, and answers are the same."""
    os.environ["MOE_SERVE_PADDING"] = "aligned"
    llm = engines.engine(
        "small", enable_sleep_mode=True, compilation_config=engines.graphs(sizes=SIZES)
    )
    before = [list(out.outputs[0].token_ids) for out in engines.generate(llm, 8, new=24)]
    llm.sleep(level=1)
    llm.wake_up()
    after: list[list[int]] = []

    def work() -> None:
        after.extend(list(o.outputs[0].token_ids) for o in engines.generate(llm, 8, new=24))

    found = served("after sleep", work)
    engines.require(after == before, "tokens after sleep", (before[0][:8], after[0][:8]))
    return {"decode": found, "recaptures": engines.record().recaptures}


def speculative() -> dict[str, Any]:
    """A drafter with experts of its own: the target's decode brings several tokens per request."""
    from moe_serve_emulation.cuda.folders import seeded

    from tools.gpu import place

    os.environ["MOE_SERVE_PADDING"] = "aligned"
    drafted = 2
    sizes = tuple(size * (1 + drafted) for size in (1, 8))
    llm = engines.engine(
        "small",
        compilation_config=engines.graphs(sizes=sizes),
        speculative_config={
            "method": "draft_model",
            "model": str(seeded(place.WORK / "models", "drafter")),
            "num_speculative_tokens": drafted,
            "attention_backend": "TRITON_ATTN",
            "draft_load_config": {"load_format": "moe_seeded"},
        },
    )
    before = engines.record()
    witness = Witness()
    with witness.watching():
        engines.generate(llm, 4, new=24)
    after = engines.record()
    found = checked("target", before, witness, sizes=sizes, width=1 + drafted)
    drafts = seen(before, after, "DRAFT")
    return found | {"drafter": {str(k): str(v) for k, v in drafts.items()}}
