"""What a site's own AITER settings and tuned tables change of the kernels that a call can take.

`AITER_CONFIG_FMOE` names CSV files that AITER looks rows up in before it decides by itself; other
variables turn that lookup or a kernel family on or off. A row whose kernels are known adds their
paths to what the call can take anyway, since other batches have no row. A row with other kernels,
or a switch whose effect was not read, makes every path possible and the answer unverified.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.aiter_eras import AiterEra, Experts
from moe_serve.padding.kernels import FLYDSL_TILES_N, Kernel, KernelPath, KernelPhase
from moe_serve.padding.shapes import Activation, Shard

TABLES = "AITER_CONFIG_FMOE"
KSPLIT = "AITER_KSPLIT"
# Each with the value that changes nothing. The bounds between decode and prefill are not here: all
# paths of both are judged for every batch. Nor is AITER_JIT_DIR: what is compiled there comes from
# the installed AITER's own sources.
SWITCHES: Mapping[str, str] = {
    "AITER_BYPASS_TUNE_CONFIG": "0",
    "AITER_ONLINE_TUNE": "0",
    "AITER_FLYDSL_FORCE": "1",
}
_SHAPE = ("model_dim", "inter_dim", "expert", "topk")
_NAMES = ("kernelName1", "kernelName2")
_LARGEST_KSPLIT = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One tuned row: the shape that it is for, and the paths of its two kernels.

    `path` None: its kernels are not known. `ksplit`: the splits of its first stage, at least 1.
    """

    shape: tuple[int, int, int, int]
    path: KernelPath | None
    ksplit: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePaths:
    """What the site adds: rows of its tables, or `anything`: why every path is possible.

    `digest`: SHA-256 over the tables and switches, for the proof; None where there are none.
    """

    rows: tuple[Row, ...] = ()
    anything: str | None = None
    digest: str | None = None

    def unverified(self, part: Shard) -> str | None:
        """Why the site's settings leave the answer for `part` unverified; None: they do not."""
        why = self.anything
        if why is None and any(row.path is None for row in self._rows_of(part)):
            why = f"a row of {TABLES} for these sizes names kernels that are not known here"
        return None if why is None else f"{why}: every kernel path has to be safe"

    def kernels(self, era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
        """The kernels that the site's rows add for `experts` under `era`."""
        if self.unverified(experts.part) is not None:
            return _every_path(era, experts)
        rows = self._rows_of(experts.part)
        found = (kernel for row in rows for kernel in _of_row(row, era, experts))
        return tuple(dict.fromkeys(found))

    def _rows_of(self, part: Shard) -> tuple[Row, ...]:
        shape = (part.padded_hidden, part.padded_intermediate, part.experts, part.top_k)
        return tuple(row for row in self.rows if row.shape == shape)


OWN_TABLES = SitePaths()


def _of_row(row: Row, era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    assert row.path is not None
    return _variants(row.path, era, experts, splits=(row.ksplit,))


def _every_path(era: AiterEra, experts: Experts) -> tuple[Kernel, ...]:
    paths = (path for path in KernelPath if path is not KernelPath.TRITON)
    return tuple(
        kernel for path in paths for kernel in _variants(path, era, experts, splits=(1, 2, 3, 4))
    )


def _variants(
    path: KernelPath, era: AiterEra, experts: Experts, *, splits: Iterable[int]
) -> tuple[Kernel, ...]:
    swiglu = experts.activation is Activation.SWIGLUOAI
    # What FlyDSL is told where there is a bias is AITER's dispatcher's matter, table or not.
    honours = era.flydsl_honours(experts.bias)
    flydsl = path in (KernelPath.FLYDSL, KernelPath.MIXED)
    tiles = FLYDSL_TILES_N if flydsl and honours else FLYDSL_TILES_N[-1:]
    return tuple(
        Kernel(
            path=path,
            phase=phase,
            layout=experts.layout,
            split_k=split,
            tile_n=tile,
            honours_pads=honours if flydsl else True,
            covers_tail=flydsl and era.flydsl_covers_tail,
            gelu=path is KernelPath.CKTILE and split > 1 and swiglu and era.splits_end_with_gelu,
            stops_misaligned=era.stops_misaligned,
        )
        for phase in KernelPhase
        for tile in tiles
        for split in (splits if path is KernelPath.CKTILE else (1,))
    )


def read_ksplit(environment: Mapping[str, str]) -> int:
    """The value of `AITER_KSPLIT`; 0 where it is not set.

    Raises:
        UsageError: AITER could not read it, or it is no number of splits that a kernel has.
    """
    return parse_ksplit(environment.get(KSPLIT, "0"), what=KSPLIT)


def parse_ksplit(text: str, *, what: str) -> int:
    """A number of splits; -1 and 1 mean none, 0 leaves the choice to AITER.

    Raises:
        UsageError: not a whole number from -1 to 256.
    """
    try:
        value = int(text) if len(text) <= 8 else None
    except ValueError:
        value = None
    if value is None or not -1 <= value <= _LARGEST_KSPLIT:
        raise UsageError(
            f"{what}: {text[:40]!r} is no number of splits; give 1 to forbid them, 0 to let AITER "
            f"choose, or a number up to {_LARGEST_KSPLIT}"
        )
    return value


def switches(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The variables that change which kernels AITER takes, where they differ from its default."""
    return {
        name: environment[name]
        for name, default in SWITCHES.items()
        if environment.get(name, default) != default
    }


def parse_table(text: str, *, source: str) -> tuple[Row, ...]:
    """The rows of one tuned table; `source` names the file in errors.

    Raises:
        UsageError: not such a table.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names = reader.fieldnames or ()
        missing = [name for name in (*_SHAPE, *_NAMES) if name not in names]
        if missing:
            raise UsageError(f"{source}: no column {', '.join(missing)}; not a tuned MoE table")
        return tuple(_row(row, source, number) for number, row in enumerate(reader, start=2))
    except csv.Error as error:
        raise UsageError(f"{source}: not a CSV file ({error})") from error


def _row(row: Mapping[str, str | None], source: str, line: int) -> Row:
    try:
        hidden, width, experts, top_k = (int(row[name] or "") for name in _SHAPE)
        split = int(float(row.get("ksplit") or 0))
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{source}: line {line}: {', '.join(_SHAPE)} are no numbers") from error
    first, second = (str(row.get(name) or "").strip() for name in _NAMES)
    return Row(
        shape=(hidden, width, experts, top_k),
        path=_path(first, second),
        ksplit=max(1, min(split, _LARGEST_KSPLIT)),
    )


def _path(first: str, second: str) -> KernelPath | None:
    """The path of a row's two kernels; None: a combination that was not read."""
    families = (_family(first), _family(second))
    known: Mapping[tuple[str, str], KernelPath] = {
        ("flydsl", "flydsl"): KernelPath.FLYDSL,
        ("flydsl", "cktile"): KernelPath.MIXED,
        ("cktile", "cktile"): KernelPath.CKTILE,
        ("ck2stages", "ck2stages"): KernelPath.CK2STAGES,
        ("asm", ""): KernelPath.ASM,
        ("asm", "ck2stages"): KernelPath.ASM,
        ("opus", "opus"): KernelPath.OPUS,
    }
    return known.get(families)


def _family(name: str) -> str:
    if not name:
        return ""
    prefixes = {
        "flydsl_moe1_": "flydsl",
        "flydsl_moe2_": "flydsl",
        "cktile_": "cktile",
        "opus_": "opus",
        "_ZN5aiter": "asm",
    }
    for prefix, family in prefixes.items():
        if name.startswith(prefix) and "_layout_" not in name:
            return family
    return "ck2stages" if "ck2stages" in name else "other"
