"""A record's proof, read as foreign data: what is missing or wrong is left out, and said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_serve.exporter.roofline import MoeShape

# Beyond these no kernel is meant, and modelled work would leave a float's range.
_LARGEST, _MOST_TIMES = 2**24, 64


@dataclass(slots=True)
class Facts:
    """Typed access to a proof by path. `wrong`: paths whose value was not what it must be."""

    proof: Mapping[str, Any]
    wrong: set[str] = field(default_factory=set)

    def number(self, *path: str) -> float | None:
        """A finite number of at least 0."""
        value = self._at(path)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < 2**63:  # false of NaN, and of what is no float
            self._reject(path)
            return None
        return float(value)

    def whole(self, *path: str) -> int | None:
        """A whole number of at least 0."""
        value = self.number(*path)
        if value is None:
            return None
        if value != int(value):
            self._reject(path)
            return None
        return int(value)

    def flag(self, *path: str) -> bool | None:
        """True or false; None where it is not said."""
        value = self._at(path)
        if value is not None and not isinstance(value, bool):
            self._reject(path)
            return None
        return value

    def text(self, *path: str) -> str:
        """A short text; empty where there is none."""
        value = self._at(path)
        if value is None:
            return ""
        # JSON may hold halves of characters, which no page can.
        if not isinstance(value, str) or len(value) > 200 or any(map(_is_half, value)):
            self._reject(path)
            return ""
        return value

    def numbers(self, *path: str) -> list[int]:
        """A list of whole numbers."""
        value = self._at(path)
        if value is None:
            return []
        if not isinstance(value, list) or not all(type(each) is int for each in value):
            self._reject(path)
            return []
        return value

    def parts(self, name: str) -> "list[Facts]":
        """A list of objects, each to be read by itself; what is wrong in them is noted here."""
        value = self._at((name,))
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self._reject((name,))
            return []
        return [Facts(each, self.wrong) for each in value]

    def _at(self, path: tuple[str, ...]) -> Any:
        value: Any = self.proof
        for name in path:
            if value is None:
                return None
            if not isinstance(value, Mapping):
                self._reject(path)
                return None
            value = value.get(name)
        return value

    def _reject(self, path: tuple[str, ...]) -> None:
        self.wrong.add(".".join(path))


def _is_half(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def moe_shape(facts: Facts) -> MoeShape | None:
    """The shape of a rank's calls; None: it is not known, or there are several."""
    shapes = facts.parts("shapes")
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    hidden, intermediate = shape.whole("hidden"), shape.whole("live_neurons")
    experts, top_k = shape.whole("experts"), shape.whole("top_k")
    padded, ratio = shape.whole("padded", "hidden"), shape.number("bytes_ratio")
    if not (hidden and intermediate and experts and top_k and padded and ratio):
        return None
    all_experts = shape.whole("all_experts") or experts
    sizes = hidden, intermediate, all_experts, padded
    if not top_k <= all_experts or not experts <= all_experts or max(sizes) > _LARGEST:
        return None
    if not 1 / _MOST_TIMES < ratio < _MOST_TIMES:
        return None
    return MoeShape(
        hidden=hidden,
        intermediate=intermediate,
        experts=experts,
        all_experts=all_experts,
        top_k=top_k,
        padded_hidden=padded,
        executed_ratio=ratio,
    )
