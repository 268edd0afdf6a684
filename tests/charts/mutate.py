"""Do the charts' tests bite? Changes the charts one place at a time and counts what is caught.

python -m tests.charts.mutate [--sample N --seed S] [--jobs J] [--report FILE]

A change: a line left out, `true` and `false` swapped, a number changed, a comparison turned round,
a word of a closed set exchanged, a refusal silenced. Comments and documentation are left alone:
nothing that is rendered hangs on them. Two kinds of tests see each change: those whose names are
sentences, and, for what they let pass, the goldens. Exit 1 if fewer than 95 % are caught.
"""

import argparse
import concurrent.futures
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import beta

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
GOAL = 0.95
SENTENCES = (
    "test_serving_pod.py",
    "test_serving_objects.py",
    "test_canary_chart.py",
    "test_refusals.py",
    "test_bad_input.py",
    "test_adoption.py",
    "test_storage.py",
    "test_versions.py",
    "test_released.py",
)
GOLDENS = ("test_goldens.py",)

_SWAPS = {
    "boolean": ((r"\btrue\b", "false"), (r"\bfalse\b", "true")),
    "comparison": (
        (r"\beq\b", "ne"), (r"\bne\b", "eq"), (r"\bgt\b", "lt"), (r"\blt\b", "gt"),
        (r"\bge\b", "lt"), (r"\bif and\b", "if or"), (r"\bif or\b", "if and"),
        (r"\bif not\b", "if"), (r"\badd\b", "sub"), (r"\bsub\b", "add"), (r"\bmul\b", "add"),
    ),
    "word": (
        (r"\bRuntimeDefault\b", "Unconfined"), (r"\bIn\b(?!\w)", "NotIn"), (r"\bALL\b", "NET_RAW"),
        (r"\bNever\b", "OnFailure"), (r"\bMemory\b", '""'), (r"\bTCP\b", "UDP"),
        (r"\bIngress, Egress\b", "Ingress"), (r"\bIfNotPresent\b", "Always"),
        (r"\bScheduleAnyway\b", "DoNotSchedule"), (r"\baligned\b", "zero"),
    ),
}  # fmt: skip
# Not how far a block is set in: one column more is the same YAML, or none.
_NUMBER = re.compile(r"(?<![\w.:/$\"-])(?<!indent )(\d+)(?![\w.:/\"-])")
_CONTROL = re.compile(r"^\s*\{\{-?\s*(end|else|define|if|with|range|/\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One changed line of one file; `text` is what stands there instead, None for nothing."""

    file: str
    line: int
    kind: str
    before: str
    text: str | None

    @property
    def canary(self) -> bool:
        """Whether it changes the canary's chart, and not the server's."""
        return self.file.startswith("moe-canary/")

    @property
    def name(self) -> str:
        change = f"{self.before.strip()} -> {(self.text or '').strip()}"
        return f"{self.file}:{self.line} {self.kind}: {change}"


def mutants() -> Iterator[Mutant]:
    """Every change, file by file."""
    for chart in ("moe-serve", "moe-canary"):
        for path in sorted((CHARTS / chart / "templates").rglob("*")):
            if path.suffix in (".yaml", ".tpl"):
                yield from _of_file(path)
        yield from _of_values(CHARTS / chart / "values.yaml")


def _of_file(path: Path) -> Iterator[Mutant]:
    comment = False
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        begun = comment or "{{/*" in line
        comment = begun and "*/}}" not in line
        if begun or not line.strip() or line.strip().startswith("#"):
            continue
        if re.search(r"\bfail\b", line):
            yield _mutant(path, number, "refusal silenced", line, "")
            continue
        if not _CONTROL.match(line):
            yield _mutant(path, number, "line left out", line, None)
        yield from _swapped(path, number, line)


def _of_values(path: Path) -> Iterator[Mutant]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.strip() and not line.strip().startswith("#"):
            yield from _swapped(path, number, line)


def _swapped(path: Path, number: int, line: str) -> Iterator[Mutant]:
    for kind, swaps in _SWAPS.items():
        for pattern, new in swaps:
            changed = re.sub(pattern, new, line, count=1)
            if changed != line:
                yield _mutant(path, number, kind, line, changed)
    found = _NUMBER.search(line)
    if found:
        changed = line[: found.start()] + str(int(found[1]) + 1) + line[found.end() :]
        yield _mutant(path, number, "number", line, changed)


def _mutant(path: Path, number: int, kind: str, before: str, text: str | None) -> Mutant:
    file = str(path.relative_to(CHARTS))
    return Mutant(file=file, line=number, kind=kind, before=before, text=text)


def judged(mutant: Mutant) -> str:
    """Who caught it: `sentences`, `goldens`, or `nobody`."""
    with tempfile.TemporaryDirectory(prefix="charts-") as folder:
        charts = Path(folder, "charts")
        shutil.copytree(CHARTS, charts, ignore=shutil.ignore_patterns("__pycache__"))
        path = charts / mutant.file
        lines = path.read_text("utf-8").splitlines()
        lines[mutant.line - 1 : mutant.line] = [] if mutant.text is None else [mutant.text]
        path.write_text("\n".join(lines) + "\n", "utf-8")
        # The changed chart's own tests first: they are the likeliest to end the search.
        sentences = tuple(sorted(SENTENCES, key=lambda file: mutant.canary != ("canary" in file)))
        for who, files in (("sentences", sentences), ("goldens", GOLDENS)):
            if _fails(charts, files):
                return who
    return "nobody"


def _fails(charts: Path, files: tuple[str, ...]) -> bool:
    here = Path(__file__).parent
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            "-m", "not charts", *(str(here / file) for file in files),
        ],
        cwd=ROOT, env={**os.environ, "MOE_SERVE_CHARTS": str(charts)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode}")
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="so many changes; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", type=Path, help="write every change and who caught it")
    args = parser.parse_args()
    chosen = list(mutants())
    whole = len(chosen)
    if args.sample:
        chosen = random.Random(args.seed).sample(chosen, min(args.sample, whole))
    if _fails(CHARTS, (*SENTENCES, *GOLDENS)):
        sys.stderr.write("the tests fail on the charts as they are\n")
        return 2
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        verdicts = []
        for mutant, who in zip(chosen, pool.map(judged, chosen), strict=True):
            verdicts.append((mutant, who))
            if who == "nobody":
                sys.stdout.write(f"survived  {mutant.name}\n")
                sys.stdout.flush()
    return _told(verdicts, whole, args)


def _told(verdicts: list[tuple[Mutant, str]], whole: int, args: argparse.Namespace) -> int:
    counted = Counter(who for _, who in verdicts)
    caught = counted["sentences"] + counted["goldens"]
    share = caught / len(verdicts)
    digest = hashlib.sha256("\n".join(m.name for m in mutants()).encode()).hexdigest()[:8]
    # Clopper and Pearson's one-sided bound; a sample is drawn without replacement, so it is more.
    least = beta.ppf(0.05, caught, len(verdicts) - caught + 1) if caught else 0.0
    of_all = "" if len(verdicts) == whole else f" (of all at least {least:.1%}, 95 % confidence)"
    sys.stdout.write(
        f"{len(verdicts)} of {whole} changes (set {digest}, seed {args.seed}): "
        f"{caught} caught, {share:.1%}{of_all}; "
        f"{counted['sentences']} by tests with a name, {counted['goldens']} by goldens alone, "
        f"{counted['nobody']} by nobody\n"
    )
    if args.report:
        lines = [f"{who:<10} {mutant.name}" for mutant, who in verdicts]
        args.report.write_text("\n".join(lines) + "\n", "utf-8")
    return 0 if share >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
