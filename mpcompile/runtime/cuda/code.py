"""What a bundle has as its library for CUDA: cubins, and what each function of a plan launches of them. No TVM here.

magic    8 bytes   MPCUDA1\\n
length   u64       of the header, little-endian
header   JSON      functions, sources; of each cubin its byte offset in the file, and its size
cubins             each at a multiple of 64 bytes, zeros between
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mpcompile.errors import ModelError
from mpcompile.files import validated
from mpcompile.runtime.aligned import ALIGNMENT

MAGIC = b"MPCUDA1\n"
START = len(MAGIC) + 8
"""Where the header begins."""
MOST_THREADS = 1024
"""Of a block, on every device (CUDA C++ Programming Guide, "Compute Capabilities")."""

Name = Annotated[str, Meta(min_length=1)]
Index = Annotated[int, Meta(ge=0, lt=1 << 16)]
Size = Annotated[int, Meta(ge=0, lt=1 << 48)]
X = Annotated[int, Meta(ge=1, lt=1 << 31)]
YZ = Annotated[int, Meta(ge=1, lt=1 << 16)]
Shared = Annotated[int, Meta(ge=0, lt=1 << 20)]


@dataclass(frozen=True)
class Launch:
    """`kernel`: a symbol of the cubins. `shared_bytes`: of dynamic shared memory. `arguments`: which of the function's
    parameters each argument of the kernel points to: 0 … n-1 are its tensors in order, n … its scratch buffers."""

    kernel: Name
    grid: tuple[X, YZ, YZ]
    block: tuple[X, YZ, YZ]
    shared_bytes: Shared
    arguments: tuple[Index, ...]


@dataclass(frozen=True)
class Function:
    """What a plan calls: it takes `parameters` tensors and does its launches in order. `scratch`: bytes of each buffer
    of device memory that it needs besides; nothing is expected in it, nothing is left."""

    parameters: Index
    scratch: tuple[Size, ...]
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class CudaCode:
    """`cubins`: "sm_87" → an ELF file with all kernels, as NVRTC makes it. `sources`: "cuda" → the same in CUDA C, for
    whoever has no GPU; what ships has none."""

    functions: Mapping[str, Function]
    cubins: Mapping[str, bytes]
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The same code gives the same bytes."""
        described = {
            "functions": {name: asdict(function) for name, function in self.functions.items()},
            "sources": dict(self.sources),
        }
        # Where the cubins are is in the header, whose length it changes: they are counted from where they begin.
        offsets, end = {}, 0
        for arch, cubin in self.cubins.items():
            offsets[arch] = (end, len(cubin))
            end = _aligned(end + len(cubin))
        cubins_at, header = 0, b""
        while True:
            placed = {arch: [cubins_at + at, size] for arch, (at, size) in offsets.items()}
            header = json.dumps({**described, "cubins": placed}, separators=(",", ":")).encode()
            if _aligned(START + len(header)) <= cubins_at:
                break
            cubins_at = _aligned(START + len(header))
        out = bytearray(MAGIC + len(header).to_bytes(8, "little") + header)
        for arch, (at, _) in offsets.items():
            out += bytes(cubins_at + at - len(out)) + self.cubins[arch]
        return bytes(out)

    @staticmethod
    def from_bytes(data: bytes | memoryview) -> CudaCode:
        """Raises ModelError, in one line, where that is not what `to_bytes` wrote."""
        data = bytes(data)
        header = _header(data)
        for name, function in header.functions.items():
            _check(name, function)
        cubins = {}
        for arch, (at, size) in header.cubins.items():
            if at % ALIGNMENT or at + size > len(data):
                raise ModelError(f"the bundle's CUDA code is damaged: no {size} bytes of {arch} are at byte {at}")
            cubins[arch] = data[at : at + size]
        return CudaCode(header.functions, cubins, header.sources)


class _Header(Struct, forbid_unknown_fields=True):
    functions: dict[Name, Function]
    cubins: Annotated[dict[Name, tuple[Size, Size]], Meta(min_length=1)]
    sources: dict[str, str]


def _header(data: bytes) -> _Header:
    if data[: len(MAGIC)] != MAGIC:
        raise ModelError("the bundle's library is no CUDA code of this version, or it is damaged")
    end = START + int.from_bytes(data[len(MAGIC) : START], "little")
    if end > len(data):
        raise ModelError("the bundle's CUDA code is damaged: it was cut within its header")
    wrong = lambda why: ModelError(f"the bundle's CUDA code is damaged: {why}")
    try:
        found = msgspec.json.decode(data[START:end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(f"its header is no JSON ({error})") from error
    return validated(found, _Header, wrong, "header")


def _check(name: str, function: Function) -> None:
    known = function.parameters + len(function.scratch)
    for launch in function.launches:
        if max(launch.arguments, default=0) >= max(known, 1):
            raise ModelError(
                f"the bundle's CUDA code is damaged: {launch.kernel} takes argument {max(launch.arguments)} of "
                f"function {name}, which has {known}"
            )
        if prod(launch.block) > MOST_THREADS:
            raise ModelError(
                f"the bundle's CUDA code is damaged: {launch.kernel} of function {name} has blocks of "
                f"{prod(launch.block)} threads, and there are at most {MOST_THREADS}"
            )


def _aligned(nbytes: int) -> int:
    return nbytes + -nbytes % ALIGNMENT
