"""The arm, cell and pair of a result, from the file's content or its name.

Benchmark tools write no arms and pairs, so the file's name has what the content lacks, in parts
separated by `-` or `_`: `canary-1k1k-c64-tp1-p3.json`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.benchmark.fields import optional_int
from moe_serve.benchmark.results import BenchmarkArm, BenchmarkCell, Shape
from moe_serve.errors import UsageError

_SHAPE = re.compile(r"(\d+)(k)(\d+)(k)|(\d+)(k?)x(\d+)(k?)")
_NUMBERED = re.compile(r"(c|conc|tp|p|pair)(\d+)")
_KEYS = {"c": "conc", "conc": "conc", "tp": "tp", "p": "pair", "pair": "pair"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmNames:
    """The names of the two arms in the results."""

    stable: str = BenchmarkArm.STABLE.value
    canary: str = BenchmarkArm.CANARY.value

    def __post_init__(self) -> None:
        """Refuse equal names."""
        if self.stable == self.canary:
            raise UsageError(
                f"--stable-label and --canary-label are both {self.stable!r}; name two arms"
            )

    def arm(self, name: str, source: str) -> BenchmarkArm:
        """The arm with this name; any other name is a `UsageError`."""
        if name == self.stable:
            return BenchmarkArm.STABLE
        if name == self.canary:
            return BenchmarkArm.CANARY
        raise UsageError(
            f"{source}: arm {name!r} is neither {self.stable!r} nor {self.canary!r}; name the "
            "arms with --stable-label and --canary-label"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The identity of one run, and the GPUs that its tokens are divided by."""

    arm: BenchmarkArm
    cell: BenchmarkCell
    pair: int | None
    gpus: int


def labels(
    content: Mapping[str, object], stem: str, names: ArmNames, source: str, conc: int | None
) -> Labels:
    """The labels `arm`, `isl`, `osl`, `conc`, `tp` and `pair` of a result.

    Args:
        content: the result's own keys; metadata such as `--metadata arm=canary tp=1 pair=3`.
        stem: the file's name without its ending.
        names: how the arms are called.
        source: the file, for the error's text.
        conc: requests in flight, where the format has a key of its own for it.

    Only `pair` may be missing, since a published table has single runs.

    Raises:
        UsageError: a label is missing, or differs between content and name.
    """
    named = _from_name(stem)
    stated: dict[str, object] = {key: content.get(key) for key in ("isl", "osl", "tp", "pair")}
    stated["conc"] = conc
    found = {
        key: _needed(
            key, _agreed(key, optional_int(stated, key, source), named.get(key), source), source
        )
        for key in ("isl", "osl", "conc", "tp")
    }
    pair = _agreed("pair", optional_int(stated, "pair", source), named.get("pair"), source)
    arm = content.get("arm") or _arm_in_name(stem, names)
    if not isinstance(arm, str):
        raise UsageError(_missing(source, "arm", "arm=canary", f"{names.canary}-..."))
    return Labels(
        arm=names.arm(arm, source),
        cell=BenchmarkCell(
            shape=Shape(input_tokens=found["isl"], output_tokens=found["osl"]),
            concurrency=found["conc"],
        ),
        pair=None if pair is None else _counted("pair", pair, source),
        gpus=found["tp"],
    )


_EXAMPLES = {
    "isl": ("isl=1024 osl=1024", "1k1k"),
    "osl": ("isl=1024 osl=1024", "1k1k"),
    "conc": ("conc=64", "c64"),
    "tp": ("tp=1", "tp1"),
}


def _agreed(key: str, content: int | None, name: int | None, source: str) -> int | None:
    if content is not None and name is not None and content != name:
        raise UsageError(f"{source}: {key} is {content} in the content but {name} in the name")
    return content if content is not None else name


def _needed(key: str, value: int | None, source: str) -> int:
    if value is None:
        raise UsageError(_missing(source, key, *_EXAMPLES[key]))
    return _counted(key, value, source)


def _counted(key: str, value: int, source: str) -> int:
    if value < 1:
        raise UsageError(f"{source}: {key} is {value}; it must be 1 or more")
    return value


def _missing(source: str, key: str, metadata: str, name: str) -> str:
    return (
        f"{source}: {key} is missing; run the benchmark with metadata ({metadata}), or put it into "
        f"the file's name ({name}), as in canary-1k1k-c64-tp1-p3.json"
    )


def _arm_in_name(stem: str, names: ArmNames) -> str | None:
    # An arm's name may contain a separator, so the whole name is searched.
    padded = f"-{stem.replace('_', '-')}-"
    found = [n for n in (names.stable, names.canary) if f"-{n.replace('_', '-')}-" in padded]
    return found[0] if len(found) == 1 else None


def _from_name(stem: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in re.split(r"[-_]", stem):
        if shape := shape_of(part):
            found["isl"], found["osl"] = shape.input_tokens, shape.output_tokens
        elif numbered := _NUMBERED.fullmatch(part):
            found[_KEYS[numbered[1]]] = int(numbered[2])
    return found


def shape_of(text: str) -> Shape | None:
    """`1k1k` or `128x64` as tokens; None if it is neither, or has none."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        return None
    first = 1 if shape[1] else 5
    given, made = (int(shape[i]) * (1024 if shape[i + 1] else 1) for i in (first, first + 2))
    return Shape(input_tokens=given, output_tokens=made) if given and made else None
