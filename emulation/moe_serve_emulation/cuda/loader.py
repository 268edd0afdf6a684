"""Load format `moe_seeded`: GPT-OSS in MXFP4 from a seed, made on the device, no file read."""

import functools
from collections.abc import Iterator
from typing import Any

import torch

from moe_serve_emulation.cuda.layout import GROUP

FORMAT = "moe_seeded"
SEED = 0
# e2m1 codes drawn evenly have a standard deviation of 2.9: a scale of 2**-7 makes 1 / sqrt(2880).
_UP_SCALE, _DOWN_SCALE = 120, 121
# Standard deviations; the router and the head relative to 1 / sqrt(hidden).
_BIAS, _ROUTER, _LOGITS = 0.1, 2.0, 4.0


@functools.cache
def register() -> None:
    """Make the load format known to vLLM; any number of calls do so once."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    class SeededLoader(BaseModelLoader):  # type: ignore[misc]
        """Hands the model tensors by its checkpoint's names."""

        def download_model(self, model_config: Any) -> None:
            """There is nothing to download."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            """Make and load every tensor."""
            model.load_weights(tensors(model_config.hf_config))

    register_model_loader(FORMAT)(SeededLoader)


def tensors(
    config: Any, device: str = "cuda", seed: int = SEED
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of everything in the checkpoint that `config` (Hugging Face's) describes."""
    made = _Made(torch.Generator(device).manual_seed(seed), device)
    hidden, vocab = config.hidden_size, config.vocab_size
    yield "model.embed_tokens.weight", made.normal(vocab, hidden, spread=1.0)
    for layer in range(config.num_hidden_layers):
        yield from _attention(made, config, f"model.layers.{layer}")
        yield from _experts(made, config, f"model.layers.{layer}.mlp")
    yield "model.norm.weight", made.ones(hidden)
    yield "lm_head.weight", made.normal(vocab, hidden, spread=_LOGITS * hidden**-0.5)


class _Made:
    """Tensors on one device from one generator."""

    def __init__(self, generator: torch.Generator, device: str) -> None:
        self._generator, self._device = generator, device

    def normal(self, *shape: int, spread: float) -> torch.Tensor:
        empty = torch.empty(shape, dtype=torch.bfloat16, device=self._device)
        return empty.normal_(0, spread, generator=self._generator)

    def ones(self, *shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.bfloat16, device=self._device)

    def codes(self, *shape: int) -> torch.Tensor:
        """Two e2m1 codes a byte, any of the 16 alike."""
        return self._bytes(0, 256, *shape)

    def scales(self, middle: int, *shape: int) -> torch.Tensor:
        """e8m0 scales around `middle`."""
        return self._bytes(middle - 1, middle + 2, *shape)

    def _bytes(self, low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(
            low, high, shape, dtype=torch.uint8, device=self._device, generator=self._generator
        )


def _attention(made: _Made, config: Any, at: str) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    wide, narrow = (n * config.head_dim for n in (heads, config.num_key_value_heads))
    yield f"{at}.input_layernorm.weight", made.ones(hidden)
    yield f"{at}.post_attention_layernorm.weight", made.ones(hidden)
    for name, rows in (("q_proj", wide), ("k_proj", narrow), ("v_proj", narrow)):
        yield f"{at}.self_attn.{name}.weight", made.normal(rows, hidden, spread=hidden**-0.5)
        yield f"{at}.self_attn.{name}.bias", made.normal(rows, spread=_BIAS)
    yield f"{at}.self_attn.o_proj.weight", made.normal(hidden, wide, spread=wide**-0.5)
    yield f"{at}.self_attn.o_proj.bias", made.normal(hidden, spread=_BIAS)
    yield f"{at}.self_attn.sinks", made.normal(heads, spread=_BIAS)


def _experts(made: _Made, config: Any, at: str) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, inter = config.hidden_size, config.intermediate_size
    experts = config.num_local_experts
    router = made.normal(experts, hidden, spread=_ROUTER * hidden**-0.5)
    yield f"{at}.router.weight", router
    yield f"{at}.router.bias", made.normal(experts, spread=_BIAS)
    for name, rows, columns, middle in (
        ("gate_up_proj", 2 * inter, hidden, _UP_SCALE),
        ("down_proj", hidden, inter, _DOWN_SCALE),
    ):
        groups = columns // GROUP
        yield f"{at}.experts.{name}_blocks", made.codes(experts, rows, groups, GROUP // 2)
        yield f"{at}.experts.{name}_scales", made.scales(middle, experts, rows, groups)
        yield f"{at}.experts.{name}_bias", made.normal(experts, rows, spread=_BIAS)
