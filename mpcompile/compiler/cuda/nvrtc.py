"""CUDA C to cubins by NVRTC, from the wheel nvidia-cuda-nvrtc-cu12: no nvcc, no headers, no driver, no device."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

from mpcompile.errors import MissingDependency, TargetError

WHEEL = "nvidia-cuda-nvrtc-cu12"
LIBRARY = "libnvrtc.so.12"
OPTIONS = ("--fmad=false", "--std=c++17", "-default-device")
"""No contraction of products and sums, no fast-math: the epilogue says itself where it multiplies and adds at once."""


@cache
def _library() -> ctypes.CDLL:
    """Raises MissingDependency naming the wheel where there is none."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "cuda_nvrtc" / "lib" / LIBRARY
        if path.exists():
            return ctypes.CDLL(str(path))
    raise MissingDependency(f"code for CUDA devices needs {WHEEL}: pip install 'mpcompile[cuda]'")


def version() -> str:
    """The release of CUDA that it is of, "12.9". Raises MissingDependency where there is none."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def cubin(source: str, arch: str) -> bytes:
    """The ELF file of a source in CUDA C for an architecture ("sm_87").

    Raises TargetError with NVRTC's first error where it is refused, MissingDependency where there is no NVRTC.
    """
    nvrtc, program = _library(), ctypes.c_void_p()
    options = [o.encode() for o in (f"--gpu-architecture={arch}", *OPTIONS)]
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if failed:
            lines = _text(nvrtc, program, "ProgramLog").decode(errors="replace").splitlines()
            said = next((line for line in lines if "error" in line), lines[0] if lines else f"error {failed}")
            raise TargetError(f"NVRTC did not compile kernels for {arch}: {said.strip()}")
        return _text(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """What nvrtcGet`what` gives of a program."""
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(nvrtc: ctypes.CDLL, status: int) -> None:
    if status:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise TargetError(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(status).decode()}")
