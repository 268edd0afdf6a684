"""Look into vLLM's calls by the names of their arguments, never by position.

0.24 put `gate_mode` before `bias1`, so a position means another argument from one release to the
next. What a signature lacks is an error here, before anything is patched.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moe_serve.errors import UnknownVllm


@dataclass(frozen=True, slots=True)
class ByName:
    """Reads and replaces arguments of calls to one function."""

    name: str
    positions: dict[str, int]
    defaults: dict[str, Any]

    def get(self, args: Sequence[Any], kwargs: dict[str, Any], argument: str) -> Any:
        """The argument's value in this call; its default (or None) where it is left out."""
        if argument in kwargs:
            return kwargs[argument]
        position = self.positions.get(argument)
        if position is not None and position < len(args):
            return args[position]
        return self.defaults.get(argument)

    def put(
        self, args: Sequence[Any], kwargs: dict[str, Any], values: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The call's arguments with `values` in their places."""
        new_args, new_kwargs = list(args), dict(kwargs)
        for argument, value in values.items():
            position = self.positions[argument]
            if argument not in kwargs and position < len(args):
                new_args[position] = value
            else:
                new_kwargs[argument] = value
        return new_args, new_kwargs


def by_name(function: Callable[..., Any], name: str, needed: Sequence[str]) -> ByName:
    """How to read `function`'s calls.

    Raises:
        UnknownVllm: it does not take every argument in `needed` by name.
    """
    parameters = inspect.signature(function).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    missing = [key for key in needed if key not in parameters or parameters[key].kind not in named]
    if missing:
        raise UnknownVllm(f"{name} takes no argument {', '.join(missing)}")
    return ByName(
        name=name,
        positions={key: position for position, key in enumerate(parameters)},
        defaults={
            key: parameter.default
            for key, parameter in parameters.items()
            if parameter.default is not inspect.Parameter.empty
        },
    )
