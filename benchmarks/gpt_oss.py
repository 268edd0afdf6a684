"""GPT-OSS in plain PyTorch, by the names and shapes of its checkpoint; to train, and to compare.

A comparison holds it against real vLLM, log-probability by
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


def logits(weights: Weights, ids: Tensor, config: Config) -> Tensor:
    """Score the next token everywhere: ids [B, T], scores [B, T, V] in the weights' type."""
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        window = config["sliding_window"] if layer % 2 == 0 else ids.shape[1]
        normed = norm(x, weights[f"{at}.input_layernorm.weight"])
        x = x + attention(weights, f"{at}.self_attn", normed, config, window)
        normed = norm(x, weights[f"{at}.post_attention_layernorm.weight"])
        x = x + experts(weights, f"{at}.mlp", normed, config["num_experts_per_tok"])
    return linear(norm(x, weights["model.norm.weight"]), weights["lm_head.weight"])


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

    tables = rotations(length, size, config["rope_theta"], x.device)
    cos, sin = (table.to(x) for table in tables)
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


def rotations(length: int, size: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, D/2] of YaRN, its attention factor within them."""
    steps = torch.arange(0, size, 2, device=device).float() / size
    turns = base**-steps

    def bound(times: float) -> float:
        return size * math.log(YARN_POSITIONS / (times * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(bound(YARN_FAST), 0), min(bound(YARN_SLOW), size - 1)
    slowed = ((torch.arange(size // 2, device=device).float() - low) / (high - low)).clamp(0, 1)
    turns = turns * (1 - slowed) + turns / YARN_FACTOR * slowed
    angles = torch.arange(length, device=device).float()[:, None] * turns
    factor = 0.1 * math.log(YARN_FACTOR) + 1
    return angles.cos() * factor, angles.sin() * factor


def experts(weights: Weights, at: str, x: Tensor, top_k: int) -> Tensor:
    """Mix the best `top_k` experts of each token."""
    scores = linear(x, weights[f"{at}.router.weight"], weights[f"{at}.router.bias"]).float()
    if top_k < scores.shape[-1]:
        least = scores.topk(top_k, -1).values[..., -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    shares = scores.softmax(-1).to(x.dtype).flatten(0, -2).T[..., None]
    # All experts for all tokens: at these sizes quicker than sorting the tokens.
    at = f"{at}.experts"
    wide = x.flatten(0, -2) @ weights[f"{at}.gate_up_proj"]
    wide = wide + weights[f"{at}.gate_up_proj_bias"][:, None]
    gate, up = wide.unflatten(-1, (-1, 2)).unbind(-1)
    active = silu(1.702 * gate.clamp(max=7)) / 1.702 * (up.clamp(-7, 7) + 1)
    out = active @ weights[f"{at}.down_proj"] + weights[f"{at}.down_proj_bias"][:, None]
    return (shares * out).sum(0).view(x.shape)


def without(weights: Weights, *, live: int, read: int) -> dict[str, Tensor]:
    """Return the weights as a kernel sees them whose pads cut into them.

    Neurons from `live` on have zero weights (their bias stays), those from `read` on do not reach
    the second stage.
    """
    blocking = dict(weights)
    for name, weight in weights.items():
        if name.endswith("gate_up_proj"):
            blocking[name] = pad(weight[:, :, : 2 * live], (0, weight.shape[2] - 2 * live))
        if name.endswith("down_proj"):
            blocking[name] = pad(weight[:, :read], (0, 0, 0, weight.shape[1] - read))
    return blocking
