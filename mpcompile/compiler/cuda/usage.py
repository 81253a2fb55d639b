"""What a kernel takes of a device, read from its cubin: registers, spilled memory, shared memory. No cuobjdump.

A cubin is an ELF64 file. Of a kernel NAME it has the sections

    .nv.info             attributes of all functions, one after another; those of format 4 hold (symbol, value)
    .text.NAME           its code
    .nv.shared.NAME      static shared memory, where it has any: its size

Attributes are named as cuobjdump --dump-elf prints them, EIATTR_FRAME_SIZE and EIATTR_REGCOUNT.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

FRAME_SIZE, REGCOUNT = 0x11, 0x2F
SIZED = 4
"""The format of an attribute that is followed by as many bytes as it says."""
PREFIX = ".text."


@dataclass(frozen=True)
class Usage:
    """registers: of a thread. frame: bytes of its stack in local memory, where spilled registers are. shared:
    static bytes of a block. code: bytes."""

    registers: int
    frame: int
    shared: int
    code: int


def usage_of(cubin: bytes) -> dict[str, Usage]:
    """Kernel → what it takes. Raises ValueError where that is no ELF64 file."""
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("that is no cubin")
    sections = dict(_sections(cubin))
    attributes = _attributes(cubin, sections)
    found = {}
    for name, header in sections.items():
        if name.startswith(PREFIX):
            kernel = name.removeprefix(PREFIX)
            shared = sections.get(f".nv.shared.{kernel}")
            size = shared.size if shared else 0
            found[kernel] = Usage(attributes[REGCOUNT, kernel], attributes[FRAME_SIZE, kernel], size, header.size)
    return found


@dataclass(frozen=True)
class _Section:
    offset: int
    size: int
    link: int


def _sections(cubin: bytes) -> Iterator[tuple[str, _Section]]:
    (at,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, at + i * size) for i in range(count)]
    text = headers[names][4]
    for name, _, _, _, offset, length, link, *_ in headers:
        yield _string(cubin, text + name), _Section(offset, length, link)


def _attributes(cubin: bytes, sections: dict[str, _Section]) -> dict[tuple[int, str], int]:
    """(attribute, kernel) → value."""
    found: dict[tuple[int, str], int] = {}
    listed, symbols = sections[".nv.info"], sections[".symtab"]
    strings = list(sections.values())[symbols.link].offset
    at, end = listed.offset, listed.offset + listed.size
    while at + 4 <= end:
        form, attribute, size = struct.unpack_from("<BBH", cubin, at)
        at += 4
        if form == SIZED:
            if size == 8:
                symbol, value = struct.unpack_from("<II", cubin, at)
                (name,) = struct.unpack_from("<I", cubin, symbols.offset + 24 * symbol)
                found[attribute, _string(cubin, strings + name)] = value
            at += size
    return found


def _string(cubin: bytes, at: int) -> str:
    return cubin[at : cubin.index(b"\0", at)].decode()
