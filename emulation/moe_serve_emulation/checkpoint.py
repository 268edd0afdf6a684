"""A seeded GPT-OSS checkpoint: the real widths, few layers and experts, random weights.

It is written as safetensors in the layout that vLLM's `gpt_oss` loader reads unquantised. The
scales make logits peaked but not degenerate, and the experts the largest part of the residual
stream, so that losses in the fused MoE change the answers.

    python -m moe_serve_emulation.checkpoint --cache DIR [--intermediate 360]
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Increased with every change after which an unchanged spec gives other weights.
_FORMAT = 1
# Standard deviations, relative to 1/sqrt(fan-in) where there is one.
_LOGIT_SPREAD = 4.0
_EXPERT_SPREAD = 4.0
_ROUTER_SPREAD = 2.0
_BIAS_SPREAD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSpec:
    """Sizes in elements; `intermediate` is the MoE width of the whole model.

    By default every token takes every expert, so that two servers do equal work for different
    prompts and differ only by their pads.
    """

    layers: int = 2
    experts: int = 2
    top_k: int = 2
    hidden: int = 2880
    intermediate: int = 2880
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    vocab: int = 512
    seed: int = 0

    @property
    def digest(self) -> str:
        """16 hex digits that are equal for equal specs."""
        text = json.dumps([_FORMAT, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def generate(cache: Path, spec: CheckpointSpec) -> Path:
    """The checkpoint's folder in `cache`, which the first call writes atomically."""
    final = cache / f"gpt-oss-{spec.intermediate}-{spec.digest}"
    if (final / "model.safetensors").exists():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as temporary:
        made = Path(temporary) / "model"
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config(spec), indent=2), "utf-8")
        write_tokenizer(made, spec)
        _write_weights(made, spec)
        shutil.rmtree(final, ignore_errors=True)
        made.replace(final)
    return final


def config(spec: CheckpointSpec) -> dict[str, object]:
    """The model's `config.json`, with GPT-OSS's own keys."""
    kinds = ("sliding_attention", "full_attention")
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": 0,
        "pad_token_id": 1,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "hidden_size": spec.hidden,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": spec.intermediate,
        "layer_types": [kinds[layer % 2] for layer in range(spec.layers)],
        "max_position_embeddings": 4096,
        "num_attention_heads": spec.heads,
        "num_experts_per_tok": spec.top_k,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "num_local_experts": spec.experts,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": spec.vocab,
    }


def write_tokenizer(folder: Path, spec: CheckpointSpec) -> None:
    """Write a tokenizer whose words are `w0`, `w1`, ...: one word per token of the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<end>": 0, "<pad>": 1, "<unknown>": 2}
    words |= {f"w{number}": number for number in range(len(words), spec.vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<end>",
        "pad_token": "<pad>",
        "unk_token": "<unknown>",
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def _write_weights(folder: Path, spec: CheckpointSpec) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(spec.seed)
    made = {}
    for name, shape, spread in tensors(spec):
        if spread is None:
            made[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            made[name] = torch.empty(shape, dtype=torch.bfloat16)
            made[name].normal_(0.0, spread, generator=generator)
    save_file(made, str(folder / "model.safetensors"), metadata={"format": "pt"})


_Shape = tuple[int, ...]


def tensors(spec: CheckpointSpec) -> Iterator[tuple[str, _Shape, float | None]]:
    """Name, shape and standard deviation of each tensor (None: ones)."""
    fan_in = spec.hidden**-0.5
    yield "model.embed_tokens.weight", (spec.vocab, spec.hidden), 1.0
    for layer in range(spec.layers):
        yield from _attention(spec, f"model.layers.{layer}")
        yield from _experts(spec, f"model.layers.{layer}.mlp")
    yield "model.norm.weight", (spec.hidden,), None
    yield "lm_head.weight", (spec.vocab, spec.hidden), _LOGIT_SPREAD * fan_in


def _attention(spec: CheckpointSpec, at: str) -> Iterator[tuple[str, _Shape, float | None]]:
    fan_in = spec.hidden**-0.5
    wide, narrow = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    yield f"{at}.input_layernorm.weight", (spec.hidden,), None
    yield f"{at}.post_attention_layernorm.weight", (spec.hidden,), None
    for name, rows in (("q_proj", wide), ("k_proj", narrow), ("v_proj", narrow)):
        yield f"{at}.self_attn.{name}.weight", (rows, spec.hidden), fan_in
        yield f"{at}.self_attn.{name}.bias", (rows,), _BIAS_SPREAD
    yield f"{at}.self_attn.o_proj.weight", (spec.hidden, wide), wide**-0.5
    yield f"{at}.self_attn.o_proj.bias", (spec.hidden,), _BIAS_SPREAD
    yield f"{at}.self_attn.sinks", (spec.heads,), _BIAS_SPREAD


def _experts(spec: CheckpointSpec, at: str) -> Iterator[tuple[str, _Shape, float | None]]:
    fan_in, experts, width = spec.hidden**-0.5, spec.experts, spec.intermediate
    yield f"{at}.router.weight", (experts, spec.hidden), _ROUTER_SPREAD * fan_in
    yield f"{at}.router.bias", (experts,), _BIAS_SPREAD
    yield f"{at}.experts.gate_up_proj", (experts, spec.hidden, 2 * width), fan_in
    yield f"{at}.experts.gate_up_proj_bias", (experts, 2 * width), _BIAS_SPREAD
    yield f"{at}.experts.down_proj", (experts, width, spec.hidden), _EXPERT_SPREAD * width**-0.5
    yield f"{at}.experts.down_proj_bias", (experts, spec.hidden), _BIAS_SPREAD


def main() -> int:
    """Generate the checkpoint and print its folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--intermediate", type=int, default=CheckpointSpec().intermediate)
    args = parser.parse_args()
    sys.stdout.write(f"{generate(args.cache, CheckpointSpec(intermediate=args.intermediate))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
