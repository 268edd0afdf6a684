"""GPT-OSS in plain PyTorch, by the names and shapes of its checkpoint; to train, and to compare.

`tests/emulation/test_learned_server.py` holds it against real vLLM, log-probability by
log-probability.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad, silu

EPSILON = 1e-5
# What a config.json of GPT-OSS that says nothing of RoPE means.
YARN_FACTOR, YARN_POSITIONS, YARN_FAST, YARN_SLOW = 32.0, 4096, 32.0, 1.0

Weights = Mapping[str, Tensor]
Config = Mapping[str, Any]


def logits(weights: Weights, ids: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Score the next token everywhere; ids [B, T].

    Returns the logits [B, T, V], and a mean square over the experts' shares of the router's
    weight, which is least (1 / experts) when all get the same.
    """
    x = weights["model.embed_tokens.weight"][ids]
    imbalance = x.new_zeros(())
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        window = config["sliding_window"] if layer % 2 == 0 else ids.shape[1]
        normed = norm(x, weights[f"{at}.input_layernorm.weight"])
        x = x + attention(weights, f"{at}.self_attn", normed, config, window)
        normed = norm(x, weights[f"{at}.post_attention_layernorm.weight"])
        out, shares = experts(weights, f"{at}.mlp", normed, config["num_experts_per_tok"])
        x = x + out
        imbalance = imbalance + shares.square().sum() / config["num_hidden_layers"]
    return linear(norm(x, weights["model.norm.weight"]), weights["lm_head.weight"]), imbalance


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm over the last dimension, computed in float32."""
    wide = x.float()
    return (wide * (wide.square().mean(-1, keepdim=True) + EPSILON).rsqrt()).to(x.dtype) * weight


def attention(weights: Weights, at: str, x: Tensor, config: Config, window: int) -> Tensor:
    """Grouped-query attention with a sink for each head, causal, over `window` tokens."""
    size, (batch, length) = config["head_dim"], x.shape[:2]

    def heads(name: str) -> Tensor:
        out = linear(x, weights[f"{at}.{name}.weight"], weights[f"{at}.{name}.bias"])
        return out.view(batch, length, -1, size).transpose(1, 2)

    cos, sin = (table.to(x) for table in rotations(length, size, config["rope_theta"]))
    query, key = (rotate(heads(name), cos, sin) for name in ("q_proj", "k_proj"))
    shared = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(shared, 1) for part in (key, heads("v_proj")))
    scores = (query @ key.transpose(2, 3)).float() * size**-0.5
    away = torch.arange(length, device=x.device)
    away = away[:, None] - away
    scores = scores.masked_fill((away < 0) | (away >= window), float("-inf"))
    sinks = weights[f"{at}.sinks"].float().view(1, -1, 1, 1).expand(batch, -1, length, 1)
    mixed = torch.cat((scores, sinks), 3).softmax(3)[..., :-1].to(x.dtype) @ value
    mixed = mixed.transpose(1, 2).flatten(2)
    return linear(mixed, weights[f"{at}.o_proj.weight"], weights[f"{at}.o_proj.bias"])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [.., T, D] in halves."""
    one, two = x.chunk(2, -1)
    return torch.cat((one * cos - two * sin, two * cos + one * sin), -1)


def rotations(length: int, size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, D/2] of YaRN, its attention factor within them."""
    steps = torch.arange(0, size, 2).float() / size
    turns = base**-steps

    def bound(times: float) -> float:
        return size * math.log(YARN_POSITIONS / (times * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(bound(YARN_FAST), 0), min(bound(YARN_SLOW), size - 1)
    slowed = ((torch.arange(size // 2).float() - low) / (high - low)).clamp(0, 1)
    turns = turns * (1 - slowed) + turns / YARN_FACTOR * slowed
    angles = torch.arange(length).float()[:, None] * turns
    factor = 0.1 * math.log(YARN_FACTOR) + 1
    return angles.cos() * factor, angles.sin() * factor


def experts(weights: Weights, at: str, x: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Mix the best `top_k` experts; returns [.., H] and every expert's mean weight [E]."""
    scores = linear(x, weights[f"{at}.router.weight"], weights[f"{at}.router.bias"])
    best, chosen = scores.topk(top_k, -1)
    shares = torch.zeros_like(scores).scatter(-1, chosen, best.float().softmax(-1).to(x.dtype))
    total = torch.zeros_like(x)
    # All experts for all tokens: at these sizes quicker than sorting the tokens.
    for expert in range(scores.shape[-1]):
        weight, bias = (
            weights[f"{at}.experts.gate_up_proj{part}"][expert] for part in ("", "_bias")
        )
        gate, up = (x @ weight + bias).unflatten(-1, (-1, 2)).unbind(-1)
        active = silu(1.702 * gate.clamp(max=7)) / 1.702 * (up.clamp(-7, 7) + 1)
        weight, bias = (weights[f"{at}.experts.down_proj{part}"][expert] for part in ("", "_bias"))
        total = total + shares[..., expert, None] * (active @ weight + bias)
    return total, shares.flatten(0, -2).mean(0)


def without(weights: Weights, *, live: int, read: int) -> dict[str, Tensor]:
    """Return the weights as a kernel sees them whose pads cut into them.

    Neurons from `live` on have zero weights (their bias stays), those from `read` on do not reach
    the second stage.
    """
    cut = dict(weights)
    for name, weight in weights.items():
        if name.endswith("gate_up_proj"):
            cut[name] = pad(weight[:, :, : 2 * live], (0, weight.shape[2] - 2 * live))
        if name.endswith("down_proj"):
            cut[name] = pad(weight[:, :read], (0, 0, 0, weight.shape[1] - read))
    return cut
