"""The bundle: what of a library is zeroed, what may travel, which wheels are taken."""

import hashlib
import json
import struct
import subprocess
from pathlib import Path

import pytest

from tools.gpu import bundle

PTX, CUBIN = 1, 2


def entry(kind: int, arch: int, payload: bytes) -> bytes:
    """One image of a fat binary: its header of 64 bytes, then the payload."""
    header = struct.pack("<HHIQ", kind, 0x101, 64, len(payload))
    return header.ljust(28, b"\0") + struct.pack("<I", arch).ljust(36, b"\0") + payload


def library(*images: bytes) -> bytearray:
    """A library with one fat binary between other bytes."""
    body = b"".join(images)
    head = bundle._MAGIC + struct.pack("<HHQ", 1, 16, len(body))
    return bytearray(b"before" + head + body + b"after")


def test_only_machine_code_of_the_target_is_kept() -> None:
    """PTX and other architectures become zeros; length, offsets and other bytes stay."""
    image = library(
        entry(CUBIN, 80, b"eighty.."), entry(CUBIN, 90, b"ninety.."), entry(PTX, 90, b"text....")
    )
    before = bytes(image)

    left = bundle.prune("lib.so", image, 90)

    assert (left.kept, left.zeroed) == (8, 16)
    assert len(image) == len(before)
    assert b"ninety.." in image
    assert b"eighty.." not in image
    assert b"text...." not in image
    assert image.startswith(b"before")
    assert image.endswith(b"after")
    assert bytes(image) == before.replace(b"eighty..", bytes(8)).replace(b"text....", bytes(8))


def test_an_emptied_library_keeps_no_gpu_code() -> None:
    """Without an architecture every image is zeroed."""
    image = library(entry(CUBIN, 90, b"ninety.."))

    assert bundle.prune("lib.so", image, None).kept == 0
    assert b"ninety.." not in image


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("vllm/_C_stable_libtorch.abi3.so", True),
        ("vllm/_flashmla_C.abi3.so", False),
        ("vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so", True),
        ("vllm/third_party/deep_gemm/x.py", False),
        ("vllm/v1/engine/core.py", True),
        ("vllm/csrc/x.cu", False),
    ],
)
def test_what_of_vllm_is_laid(name: str, wanted: bool) -> None:
    """Python and the named libraries travel; sources and other kernels stay."""
    assert bundle._wanted(name) is wanted


def test_what_may_travel_is_limited() -> None:
    """A bundle alone, and a bundle with its checkout, are refused above their limits."""
    bundle.require_small(54 << 20, 5 << 20)
    with pytest.raises(bundle.BundleError, match=r"the bundle: 56\.0 MiB"):
        bundle.require_small(56 << 20, 0)
    with pytest.raises(bundle.BundleError, match=r"bundle and checkout: 61\.0 MiB"):
        bundle.require_small(50 << 20, 11 << 20)


def test_checkout_and_largest_bundle_fit_together() -> None:
    """The repository leaves room for the bundle."""
    known = subprocess.run(
        ["git", "-C", str(bundle.ROOT), "status"], capture_output=True, check=False
    )
    if known.returncode:
        pytest.skip("this tree is an archive: git does not know its files")
    assert bundle.tracked_bytes(bundle.ROOT) < bundle.LARGEST_TOGETHER - (35 << 20)


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    """A changed or missing file is named, with its pinned digest."""
    wheel = tmp_path / "one-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    pins = {"wheels": {wheel.name: hashlib.sha256(b"wheel").hexdigest()}}
    bundle._require_pinned(tmp_path, pins)

    wheel.write_bytes(b"other")
    with pytest.raises(bundle.BundleError, match="not the pinned wheel"):
        bundle._require_pinned(tmp_path, pins)


def test_pins_name_hashes_and_no_host() -> None:
    """Every wheel has a digest; the file says nothing of where it came from."""
    text = bundle.PINS.read_text("utf-8")
    pins = json.loads(text)

    assert any(name.startswith(f"vllm-{pins['vllm']}-") for name in pins["wheels"])
    assert all(len(digest) == 64 for digest in pins["wheels"].values())
    assert "://" not in text


def test_a_missing_bundle_is_one_line(tmp_path: Path) -> None:
    """`run` without a bundle says which command makes it, and exits with 2."""
    from tools.gpu.__main__ import main

    assert main(["run", "machine", "--bundle", str(tmp_path), "--out", str(tmp_path)]) == 2
