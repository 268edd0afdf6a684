"""How every verb reads its flags: one-line errors, whole numbers with a floor."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from moe_serve.errors import UsageError

Verb = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, raised as `UsageError`."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise UsageError(message.removeprefix("argument "))


def at_least(floor: int) -> Callable[[str], int]:
    """A flag type: a whole number, `floor` or more."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = floor - 1
        if value < floor:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; give a whole number, {floor} or more"
            )
        return value

    return parse


def between(low: float, high: float) -> Callable[[str], float]:
    """A flag type: a number above `low`, `high` at most; NaN and infinity are none."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low
        if not low < value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; give a number above {low:g}, {high:g} at most"
            )
        return value

    return parse


def fraction(text: str) -> float:
    """A flag type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; give a fraction from 0 to 1")
    return value


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `--output text|json`."""
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="form of the answer"
    )


def printable(text: str) -> str:
    """The text with what a terminal cannot show (a name that is no Unicode) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
