"""What PyTorch does not offer of the CUDA and HIP runtimes: mapping a file, the clock's rate."""

import ctypes
import re
from pathlib import Path
from typing import Any

_MAPPED = 2  # cudaHostRegisterMapped, hipHostRegisterMapped
_HIP_WALL_CLOCK_RATE = 10017  # hipDeviceAttributeWallClockRate, kHz (hip_runtime_api.h, ROCm 6, 7)
_LIBRARIES = {"cuda": r"/libcudart(-[0-9a-f]+)?\.so[.\d]*$", "hip": r"/libamdhip64\.so[.\d]*$"}


class DriverError(Exception):
    """A call of the runtime that failed: its name and its error number."""


class Driver:
    """The runtime that PyTorch has loaded in this process; `kind` is `cuda` or `hip`."""

    def __init__(self, kind: str) -> None:
        """Find the runtime's library.

        Raises:
            DriverError: PyTorch has not loaded it.
        """
        self.kind = kind
        paths = set(re.findall(r"(/\S+)$", Path("/proc/self/maps").read_text(), re.MULTILINE))
        found = sorted(path for path in paths if re.search(_LIBRARIES[kind], path))
        if not found:
            raise DriverError(f"PyTorch has loaded no {kind} runtime")
        self._library = ctypes.CDLL(found[0])

    def map(self, address: int, size: int) -> int:
        """Let the device write `size` bytes at a page-aligned host address; its address there.

        Raises:
            DriverError: the driver cannot.
        """
        host = ctypes.c_void_p(address)
        self._call("HostRegister", host, ctypes.c_size_t(size), ctypes.c_uint(_MAPPED))
        device = ctypes.c_void_p()
        self._call("HostGetDevicePointer", ctypes.byref(device), host, ctypes.c_uint(0))
        if not device.value:
            raise DriverError("HostGetDevicePointer gave no address")
        return device.value

    def unmap(self, address: int) -> None:
        """Undo `map`."""
        self._call("HostUnregister", ctypes.c_void_p(address))

    def wall_clock_hertz(self, device: int) -> int | None:
        """The rate of HIP's wall clock; None on CUDA, and where the driver does not say.

        Raises:
            DriverError: the call failed.
        """
        if self.kind != "hip":
            return None
        kilohertz = ctypes.c_int()
        arguments = (ctypes.c_int(_HIP_WALL_CLOCK_RATE), ctypes.c_int(device))
        self._call("DeviceGetAttribute", ctypes.byref(kilohertz), *arguments)
        return kilohertz.value * 1000 or None

    def _call(self, name: str, *arguments: Any) -> None:
        error = getattr(self._library, f"{self.kind}{name}")(*arguments)
        if error:
            # The runtime keeps a last error, which the next call of PyTorch would raise.
            getattr(self._library, f"{self.kind}GetLastError")()
            raise DriverError(f"{self.kind}{name} failed with error {error}")
