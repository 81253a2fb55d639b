"""What host and session say to each other, over TVM's RPC: texts of JSON, and blobs, bytes named by their sha256.

The session has these functions, which any TVM client can look up:

    mpcompile.about()              → PROTOCOL, the device's About, its limits
    mpcompile.state()              → its State
    mpcompile.put(sha, total, b)   → appends a piece of a blob
    mpcompile.start(text)          → begins a method of Device: {"method", "arguments", "seconds", "files"}
    mpcompile.wait(seconds)        → {"progress": [done, total]}, or {"result": …} or {"error": {"kind", "message"}}
    mpcompile.fetch(sha, at, size) → a piece of a blob of the result

`files` of a call, sha256 → name, become files of the session, and stay; all other blobs are gone when it ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mpcompile import errors
from mpcompile.runtime.device import Kernel
from mpcompile.runtime.manifest import plan_of
from mpcompile.temporary import NO_ROOM

PROTOCOL = 1
FUNCTIONS = ("about", "state", "put", "start", "wait", "fetch")
PIECE = 1 << 20
"""Bytes of a blob that go up or down in one call."""
LOST = "mpcompile: the session ended: "
"""What the server writes before the reason when it ends a session itself."""
ORDERLY = 75
"""The exit status of a session's process whose client or server has gone: no kernel's, by chance."""


@dataclass
class Blobs:
    """Bytes by their sha256."""

    data: dict[str, bytes | memoryview] = field(default_factory=dict)

    def add(self, data: bytes | memoryview) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.data.setdefault(sha, data)
        return sha

    def add_array(self, array: np.ndarray) -> dict:
        array = np.ascontiguousarray(array)
        return {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "bytes": array.nbytes,
            "blob": self.add(array.tobytes()),
        }


def array_of(d: Mapping, blob: Callable[[str], bytes | bytearray]) -> np.ndarray:
    """The array that Blobs.add_array described; read-only."""
    return np.frombuffer(blob(d["blob"]), np.dtype(d["dtype"])).reshape(d["shape"])


def kernel_to_json(kernel: Kernel, blobs: Blobs) -> dict:
    return {
        "library": blobs.add(kernel.library),
        "plan": kernel.plan.to_json(),
        "weights": blobs.add_array(kernel.weights),
        "kind": kernel.kind,
        "arch": kernel.arch,
        "features": list(kernel.features),
    }


def kernel_of(d: Mapping, blob: Callable[[str], bytes | bytearray]) -> Kernel:
    return Kernel(
        bytes(blob(d["library"])),
        plan_of(d["plan"], "the kernel's plan"),
        array_of(d["weights"], blob),
        d["kind"],
        d["arch"],
        tuple(d["features"]),
    )


def error_to_json(error: BaseException, names: Mapping[str, str]) -> dict:
    """`names`: what stands in messages for files of the session → what its host calls them."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        error = errors.ResourceError(f"cannot write its temporary files: {error.strerror}")
    message = str(error)
    for here, there in names.items():
        message = message.replace(here, there)
    if not isinstance(error, errors.MpError):
        return {"kind": "", "message": f"{type(error).__name__}: {message}"}
    return {"kind": type(error).__name__, "message": message}


def error_of(d: Mapping, where: str) -> Exception:
    """The error as it was raised there; RuntimeError where it was none that a user can act on."""
    kind = getattr(errors, d["kind"], None) if d["kind"] else None
    if isinstance(kind, type) and issubclass(kind, errors.MpError):
        return kind(f"{where}: {d['message']}")
    return RuntimeError(f"on {where}: {d['message']}")
