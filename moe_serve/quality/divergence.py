"""How far an arm's distribution lies from a reference's, position by position, in nats.

What a server tells of a distribution is its best tokens and the token at hand. Over the tokens
that both name, with all others as one, the Kullback-Leibler divergence is exact for that coarser
distribution, so never above the true one. Where the token at hand was *sampled* from the reference
and lies among the others, its own log ratio there makes the estimate unbiased for the whole.

Rounding noise enters the divergence squared: a kernel that sums in another order moves single
log-probabilities by hundredths of a nat and this by far less than a thousandth.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

_SMALLEST = 1e-9  # of a probability: single precision knows nothing of less


@dataclass(frozen=True, slots=True)
class Position:
    """One position of a text: the token there, its log-probability, and the best tokens' (nats).

    `top` holds the server's k best alone, whether the token is among them or not: which tokens are
    in it must not depend on the token.
    """

    token: int
    logprob: float
    top: Mapping[int, float]

    @property
    def first(self) -> int:
        """The server's own first choice."""
        return max(self.top, key=self.top.__getitem__) if self.top else self.token

    @property
    def finite(self) -> bool:
        """Whether every value is a number."""
        return math.isfinite(self.logprob) and all(map(math.isfinite, self.top.values()))


Text = tuple[Position, ...]


def divergence(reference: Position, arm: Position, *, sampled: bool) -> float:
    """From the reference to the arm, in nats; both in the same context.

    `sampled` says that the token was drawn from the reference's distribution (not chosen).
    """
    shared = reference.top.keys() & arm.top.keys()
    kept = {token: (math.exp(reference.top[token]), arm.top[token]) for token in shared}
    total = sum(p * (reference.top[token] - other) for token, (p, other) in kept.items())
    beyond = sampled and reference.token not in shared
    rest = [
        _rest(sum(masses), math.exp(at.logprob) if beyond else 0.0)
        for masses, at in (
            ((p for p, _ in kept.values()), reference),
            ((math.exp(other) for _, other in kept.values()), arm),
        )
    ]
    mean_log_ratio = math.log(rest[0]) - math.log(rest[1])
    total += rest[0] * mean_log_ratio
    return total + (reference.logprob - arm.logprob - mean_log_ratio if beyond else 0.0)


def _rest(mass: float, at_least: float) -> float:
    return max(1.0 - mass, at_least, _SMALLEST)


def common(reference: Text, *arms: Text) -> int:
    """Positions at which all had the same context: up to and with the first different token."""
    length = min(len(text) for text in (reference, *arms))
    for at in range(length):
        if any(text[at].token != reference[at].token for text in arms):
            return at + 1
    return length
