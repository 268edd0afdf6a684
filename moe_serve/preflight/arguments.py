"""What of vLLM's command line decides the pads: the model, and how it is spread over GPUs.

vLLM reads its flags with argparse: a flag may be shortened, may hold `_` for `-`, and the last of
two counts. All else on the line is vLLM's own business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.shapes import Parallelism

# A flag's full name, the shortest form that vLLM takes for it, its short form.
_TP = ("--tensor-parallel-size", "--te", "-tp")
_DP = ("--data-parallel-size", "--data-parallel-size", "-dp")
_EP = ("--enable-expert-parallel", "--enable-ex", "-ep")
_NO_EP = ("--no-enable-expert-parallel", "--no-enable-ex", "")
_MODEL = ("--model", "--model", "")
_BACKEND = ("--moe-backend", "--moe-b", "")
_CONFIG = ("--config", "--config", "")
_VALUED = (_TP, _DP, _MODEL, _BACKEND, _CONFIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArguments:
    """What was read; `rest` is the command line without the model, in its order.

    `config` is the file that vLLM will take more flags from, which were not read.
    """

    model: str
    parallel: Parallelism
    moe_backend: str = "auto"
    config: str | None = None
    rest: tuple[str, ...] = ()


def read_arguments(words: Sequence[str]) -> EngineArguments:
    """Read the arguments of `vllm serve`.

    Raises:
        UsageError: there is no model, or a size is not a whole number above 0.
    """
    rest = list(words)
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    found: dict[str, str] = {}
    ep = False
    for flag, value in _flags(words):
        if flag in (_EP[0], _NO_EP[0]):
            ep = flag == _EP[0]
        elif value is None:
            raise UsageError(f"{flag}: its value is missing")
        else:
            found[flag] = value
    model = named or found.get(_MODEL[0])
    if model is None:
        raise UsageError("MODEL: missing; moe-serve serve openai/gpt-oss-120b [vLLM's arguments]")
    return EngineArguments(
        model=model,
        parallel=Parallelism(tp=_size(_TP, found), dp=_size(_DP, found), ep=ep),
        moe_backend=found.get(_BACKEND[0], "auto").lower().replace("-", "_"),
        config=found.get(_CONFIG[0]),
        rest=tuple(rest if named else _without_model(rest)),
    )


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        flag = _known(key)
        if flag is None:
            continue
        if flag not in _VALUED:
            yield flag[0], None
        elif equals:
            yield flag[0], value
        else:
            yield flag[0], words[index + 1] if index + 1 < len(words) else None


def _known(key: str) -> tuple[str, str, str] | None:
    key = key.replace("_", "-") if key.startswith("--") else key
    for flag in (*_VALUED, _EP, _NO_EP):
        full, shortest, short = flag
        if key and (key == short or (key.startswith(shortest) and full.startswith(key))):
            return flag
    return None


def _size(flag: tuple[str, str, str], found: dict[str, str]) -> int:
    text = found.get(flag[0], "1")
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{flag[0]} {text!r} is not allowed; give a whole number, 1 or more")
    return int(text)


def _without_model(words: list[str]) -> Iterator[str]:
    following = False
    for word in words:
        key, equals, _ = word.partition("=")
        if following:
            following = False
        elif key == _MODEL[0]:
            following = not equals
        else:
            yield word
