"""Real vLLM engines in this process: how they are started, loaded and read."""

import gc
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.gpu import place

# Below the seeded models' vocabulary, above its special words.
TOKENS = range(3, 500)
RECORDS = "MOE_SERVE_RECORD_DIR"


def engine(size: str, **more: Any) -> Any:
    """A vLLM `LLM` of a seeded model; its record lies where `records()` says."""
    from moe_serve_emulation.cuda.folders import seeded
    from moe_serve_emulation.cuda.loader import FORMAT

    os.environ.setdefault(RECORDS, f"/dev/shm/moe-serve-{os.getpid()}")
    from vllm import LLM

    arguments = {
        "model": str(seeded(place.WORK / "models", size)),
        "load_format": FORMAT,
        "moe_backend": "aiter",
        "attention_backend": "TRITON_ATTN",
        "max_model_len": 1024,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "gpu_memory_utilization": 0.2,
        "kv_cache_memory_bytes": 3 << 30,
        "enable_prefix_caching": False,
        "enable_flashinfer_autotune": False,
        "disable_log_stats": True,
        "seed": 0,
        "compilation_config": graphs(),
    } | more
    begun = time.monotonic()
    made = LLM(**arguments)
    print(f"engine of {size} after {time.monotonic() - begun:.1f} s", flush=True)
    return made


def graphs(
    mode: str = "FULL_DECODE_ONLY", sizes: Sequence[int] = (1, 8, 64), compiled: bool = False
) -> dict[str, Any]:
    """A compilation configuration; `compiled` is with torch.compile."""
    return {
        "mode": 3 if compiled else 0,
        "cudagraph_mode": mode,
        "cudagraph_capture_sizes": list(sizes),
    }


def prompts(count: int, length: int, seed: int = 1) -> list[dict[str, list[int]]]:
    """Seeded prompts as token ids."""
    draw = random.Random(seed)
    return [{"prompt_token_ids": draw.choices(TOKENS, k=length)} for _ in range(count)]


def generate(llm: Any, batch: int, *, prompt: int = 16, new: int = 64, seed: int = 1) -> Any:
    """`batch` requests at once, `new` greedy tokens each; vLLM's answers."""
    from vllm import SamplingParams

    asked = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
    return llm.generate(prompts(batch, prompt, seed), asked, use_tqdm=False)


def scored(llm: Any, *, count: int = 8, length: int = 48, new: int = 24) -> dict[str, Any]:
    """Log-probabilities of the prompts' tokens; greedy tokens and their log-probabilities."""
    from vllm import SamplingParams

    asked = SamplingParams(
        temperature=0, max_tokens=new, ignore_eos=True, prompt_logprobs=0, logprobs=0
    )
    outs = llm.generate(prompts(count, length, seed=7), asked, use_tqdm=False)
    best = [out.outputs[0] for out in outs]
    return {
        "prompt": [[next(iter(at.values())).logprob for at in o.prompt_logprobs[1:]] for o in outs],
        "tokens": [list(each.token_ids) for each in best],
        "decode": [
            [at[token].logprob for at, token in zip(each.logprobs, each.token_ids, strict=True)]
            for each in best
        ],
    }


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Mean distance of log-probabilities in nats per token, and how many greedy tokens agree."""
    pairs = {
        key: [
            (a, b)
            for x, y in zip(one[key], other[key], strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        for key in ("prompt", "decode", "tokens")
    }
    return {
        "prompt_nats": sum(abs(a - b) for a, b in pairs["prompt"]) / len(pairs["prompt"]),
        "decode_nats": sum(abs(a - b) for a, b in pairs["decode"]) / len(pairs["decode"]),
        "same_tokens": sum(a == b for a, b in pairs["tokens"]),
        "tokens": len(pairs["tokens"]),
    }


def record() -> Any:
    """The one record that the worker of this process has left, after all that was launched."""
    import torch

    from moe_serve.telemetry.record import read_records

    torch.cuda.synchronize()
    (found,) = read_records(Path(os.environ[RECORDS]))
    return found


def totals(found: Any) -> dict[str, dict[str, float]]:
    """Counts, tokens and mean microseconds by kind, mode, phase, layer and bucket."""
    return {
        _name(key): {
            "count": total.count,
            "tokens": total.tokens,
            "invalid": total.invalid,
            "mean_us": total.seconds / total.count * 1e6,
        }
        for key, total in sorted(found.totals.items(), key=lambda item: str(item[0]))
        if total.count
    }


def _name(key: Any) -> str:
    model = f" {key.model.name}" if key.model.name != "TARGET" else ""
    return f"{key.kind.name} {key.mode.name} {key.phase.name} {key.layer} {key.bucket}{model}"


def proof(found: Any) -> dict[str, Any]:
    """What the record proves, for a report."""
    kept = ("vllm", "aiter", "torch", "markers", "device", "layers", "graphs", "fault", "untouched")
    return {
        **{name: found.proof.get(name) for name in kept},
        "intercepted": found.proof.get("intercepted_calls"),
        "recaptures": found.recaptures,
        "torn": found.slots_torn,
        "shapes": found.proof.get("shapes"),
    }


def require(condition: object, what: str, seen: object) -> None:
    """Stop the stage with what was seen, unless the condition holds."""
    if not condition:
        raise AssertionError(f"{what}: {seen}")


def objects(wanted: type) -> list[Any]:
    """Every living object of exactly this class; vLLM keeps them in places of its own."""
    gc.unfreeze()  # vLLM takes what it has made out of the collector's sight
    return [each for each in gc.get_objects() if type(each) is wanted]
