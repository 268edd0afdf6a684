"""What the driver's files say of a node, and what an operator is told to do about it."""

import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from moe_serve.preflight.checks import PreflightCheck, PreflightOutcome
from moe_serve.preflight.devices import DeviceFile, check_devices, read_device_files
from moe_serve.preflight.expected_gpus import PRODUCTS, ExpectedGpus, mode
from moe_serve.preflight.gpus import (
    Gpu,
    check_gpus,
    firmware_from_tools,
    read_gpus,
    run_tool,
    target,
)
from tests.preflight.nodes import GIB, VRAM_BYTES, Card, node

MI300X = Card(gfx=90402, device_id=0x74A1, vram=192 * GIB, mec=177, kfd_mec=177)
CPX = Card(compute="CPX", parts=8)
WHO = "user 2000, groups 0"


def answers(
    root: Path,
    *,
    wanted: int = 1,
    firmware: int | None = None,
    environment: Mapping[str, str] | None = None,
    expected: ExpectedGpus | None = None,
) -> dict[str, PreflightCheck]:
    found = check_gpus(
        read_gpus(root),
        wanted=wanted,
        firmware=firmware,
        environment=environment or {},
        expected=expected,
    )
    return {check.name: check for check in found}


def test_a_good_mi355x_node_is_read_whole(tmp_path: Path) -> None:
    gpus = read_gpus(node(tmp_path, *[Card()] * 8))

    assert len(gpus) == 8
    assert gpus[0] == Gpu(
        render_node="renderD128",
        gfx="gfx950",
        pci="0000:15:00.0",
        compute_partition="SPX",
        memory_partition="NPS1",
        vram_bytes=VRAM_BYTES,
        vram_used_bytes=300 * 2**20,
        mec_firmware=41,
    )
    assert [gpu.render_node for gpu in gpus][-1] == "renderD135"


def test_a_good_mi355x_node_passes(tmp_path: Path) -> None:
    found = answers(node(tmp_path, *[Card()] * 8), wanted=8)

    assert [check.outcome for check in found.values()] == [PreflightOutcome.OK] * 4
    assert found["gpu"].detail == "8 x gfx950"


@pytest.mark.parametrize(
    ("version", "name"), [(90500, "gfx950"), (90402, "gfx942"), (90010, "gfx90a"), (0, None)]
)
def test_the_drivers_number_is_the_compilers_name(
    version: int, name: str | None, tmp_path: Path
) -> None:
    assert target(read_gpus(node(tmp_path, Card(gfx=version)))) == name


def test_an_mi300x_is_told_which_nodes_to_select(tmp_path: Path) -> None:
    found = answers(node(tmp_path, MI300X))

    assert not found["gpu"].passed
    assert "renderD128 is gfx942" in found["gpu"].detail
    assert "75a3" in found["gpu"].detail
    assert "has 192 GiB" in found["vram"].detail


def test_one_other_card_among_eight_fails(tmp_path: Path) -> None:
    found = answers(node(tmp_path, *[Card()] * 7, MI300X), wanted=8)

    assert "renderD135 is gfx942" in found["gpu"].detail
    assert "renderD128" not in found["gpu"].detail


def test_an_mi300x_passes_where_it_is_expected(tmp_path: Path) -> None:
    found = answers(node(tmp_path, MI300X), expected=ExpectedGpus(product=PRODUCTS["MI300X"]))

    assert [check.outcome for check in found.values()] == [PreflightOutcome.OK] * 4
    assert found["gpu"].detail == "1 x gfx942"


def test_an_mi355x_fails_where_an_mi300x_is_expected(tmp_path: Path) -> None:
    found = answers(node(tmp_path, Card()), expected=ExpectedGpus(product=PRODUCTS["MI300X"]))

    assert "--product MI300X is gfx942" in found["gpu"].detail
    assert '"74a1" (MI300X) or "74b5"' in found["gpu"].detail


def test_an_accepted_partitioning_passes_and_others_fail(tmp_path: Path) -> None:
    parts = node(tmp_path / "parts", Card(compute="CPX", parts=8, vram=VRAM_BYTES // 8))
    whole = node(tmp_path / "whole", Card())
    expected = ExpectedGpus(modes=(mode("cpx_nps1"),))

    found = answers(parts, expected=expected)
    assert found["partition"].detail == "CPX/NPS1"
    assert found["vram"].passed
    refused = answers(whole, expected=expected)["partition"]
    assert not refused.passed
    assert "accepted is CPX/NPS1" in refused.detail
    both = ExpectedGpus(modes=(mode("spx_nps1"), mode("cpx_nps1")))
    assert answers(whole, expected=both)["partition"].passed


def test_a_part_with_too_little_memory_is_no_pass(tmp_path: Path) -> None:
    root = node(tmp_path, Card(compute="CPX", parts=8, vram=VRAM_BYTES // 16))
    assert not answers(root, expected=ExpectedGpus(modes=(mode("cpx_nps1"),)))["vram"].passed


@pytest.mark.parametrize("text", ["", "spx", "spx_nps3", "xpx_nps1", "spx_nps1,cpx_nps1"])
def test_a_mode_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write COMPUTE_MEMORY"):
        mode(text)


def test_every_part_of_a_partitioned_card_is_traced_to_its_mode(tmp_path: Path) -> None:
    root = node(tmp_path, CPX)

    assert {gpu.pci for gpu in read_gpus(root)} == {"0000:15:00.0"}
    assert "renderD135 (0000:15:00.0) is CPX/NPS1" in answers(root)["partition"].detail
    assert "amd-smi set" in answers(root)["partition"].detail


@pytest.mark.parametrize("card", [Card(memory="NPS2"), Card(compute=None), Card(memory=None)])
def test_a_split_or_unknown_memory_mode_is_no_pass(card: Card, tmp_path: Path) -> None:
    assert not answers(node(tmp_path, card))["partition"].passed


def test_memory_that_another_process_holds_is_told(tmp_path: Path) -> None:
    found = answers(node(tmp_path, Card(used=63 * GIB)))

    assert "63 of 288 GiB are taken" in found["vram"].detail
    assert not found["vram"].passed


def test_memory_that_the_driver_does_not_tell_is_no_pass(tmp_path: Path) -> None:
    assert not answers(node(tmp_path, Card(vram=None)))["vram"].passed


def test_no_gpu_fails_once_and_leaves_the_rest_unasked(tmp_path: Path) -> None:
    found = answers(tmp_path)

    assert found["gpu"].outcome is PreflightOutcome.FAIL
    assert "--no-gpu" in found["gpu"].detail
    assert {found[name].outcome for name in ("partition", "vram", "firmware")} == {
        PreflightOutcome.SKIP
    }


def test_fewer_gpus_than_ranks_fail(tmp_path: Path) -> None:
    found = answers(node(tmp_path, Card(), Card()), wanted=8)

    assert "shows 2 GPUs" in found["gpu"].detail
    assert not found["gpu"].passed


@pytest.mark.parametrize(
    ("card", "environment", "passes"),
    [
        (Card(mec=24), {}, True),
        (Card(mec=23), {}, False),
        (Card(mec=23), {"HSA_NO_SCRATCH_RECLAIM": "1"}, True),
        (Card(mec=23), {"HSA_NO_SCRATCH_RECLAIM": "0"}, False),
        (Card(mec=None, kfd_mec=41), {}, True),
        (Card(mec=None, kfd_mec=23), {}, False),
        (Card(mec=None, kfd_mec=None), {}, False),
        (Card(mec=None, kfd_mec=None), {"HSA_NO_SCRATCH_RECLAIM": "1"}, True),
        (Card(mec=0x8000 | 23), {}, False),
        (MI300X, {}, True),
        (Card(gfx=90402, mec=176), {}, False),
    ],
)
def test_old_or_unknown_firmware_needs_the_workaround(
    card: Card, environment: Mapping[str, str], passes: bool, tmp_path: Path
) -> None:
    found = answers(node(tmp_path, card), environment=environment)["firmware"]

    assert found.passed is passes
    assert passes or "HSA_NO_SCRATCH_RECLAIM=1" in found.detail


def test_one_gpu_of_unknown_firmware_is_not_covered_by_the_others(tmp_path: Path) -> None:
    root = node(tmp_path, Card(), Card(mec=None, kfd_mec=None))

    assert not answers(root, wanted=2)["firmware"].passed
    assert answers(root, wanted=2, firmware=41)["firmware"].passed


ROCM_SMI = """
============================ ROCm System Management Interface ============================
================================= Firmware Information ==================================
GPU[0]\t\t: get_firmware_version_ME, Not supported on the given system
GPU[0]\t\t: MEC firmware version: \t41
GPU[0]\t\t: MEC2 firmware version: \t17
GPU[1]\t\t: MEC firmware version: \t34
================================== End of ROCm SMI Log ===================================
"""
AMD_SMI = """GPU: 0
    FW_LIST:
        FW 0:
            FW_ID: CP_MEC1
            FW_VERSION: 32959
        FW 1:
            FW_ID: CP_MEC2
            FW_VERSION: 17
"""


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ({"rocm-smi": ROCM_SMI}, 34),
        ({"rocm-smi": "", "amd-smi": AMD_SMI}, 191),
        ({"amd-smi": AMD_SMI.replace("32959", "0x80b8")}, 184),
        ({"amd-smi": AMD_SMI.replace("32959", "N/A")}, None),
        ({"rocm-smi": "ERROR: GPU[0]: rsmi_init failed"}, None),
        ({}, None),
    ],
)
def test_the_tools_tell_the_lowest_firmware_of_all_gpus(
    printed: Mapping[str, str], version: int | None
) -> None:
    def run(command: Sequence[str]) -> str:
        return printed.get(command[0], "")

    assert firmware_from_tools(run) == version


def test_a_tool_that_is_absent_says_nothing() -> None:
    assert run_tool(["no-such-tool-of-rocm"]) == ""


def files(root: Path, number: int | None = None) -> tuple[DeviceFile, ...]:
    def shut(path: Path) -> None:
        if number is not None and "renderD" in path.name:
            raise OSError(number, os.strerror(number))

    return read_device_files(root, shut)


def test_files_that_open_pass(tmp_path: Path) -> None:
    root = node(tmp_path, *[Card()] * 2)

    assert check_devices(read_device_files(root), wanted=2, who=WHO).passed
    assert not check_devices(read_device_files(root), wanted=3, who=WHO).passed


def test_a_shut_render_node_names_the_group_to_add() -> None:
    shut = DeviceFile(path="/dev/dri/renderD128", error=errno.EACCES, group=109, mode=0o660)
    found = check_devices([shut], wanted=1, who=WHO)

    assert found.detail == (
        "/dev/dri/renderD128 is for group 109 (mode 0660) and shut to user 2000, groups 0; add 109 "
        "to the pod's securityContext.supplementalGroups (gpu.renderGroups in the chart)"
    )
    assert not found.passed


def test_the_group_is_read_from_the_file(tmp_path: Path) -> None:
    root = node(tmp_path, Card())
    shut = files(root, errno.EACCES)[1]

    assert (shut.path, shut.group) == ("/dev/dri/renderD128", os.getgid())


def test_a_device_that_the_container_was_not_given_is_another_fault(tmp_path: Path) -> None:
    found = check_devices(files(node(tmp_path, Card()), errno.EPERM), wanted=1, who=WHO)

    assert "amd.com/gpu" in found.detail
    assert "supplementalGroups" not in found.detail


def test_no_driver_is_told(tmp_path: Path) -> None:
    assert "/dev/kfd is missing" in check_devices(files(tmp_path), wanted=1, who=WHO).detail


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another group")
def test_a_real_file_that_is_shut_to_a_real_user() -> None:
    # Not pytest's own folder, which is shut to other users as a whole.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        render = node(Path(name), Card()) / "dev/dri/renderD128"
        os.chown(render, 0, 109)
        render.chmod(0o660)
        os.setegid(2000)
        os.seteuid(2000)
        try:
            found = check_devices(read_device_files(Path(name)), wanted=1, who=WHO)
        finally:
            os.seteuid(0)
            os.setegid(0)

    assert "/dev/dri/renderD128 is for group 109 (mode 0660)" in found.detail
