"""Makes the symbols of an object file local, as objcopy --keep-global-symbol does, for any architecture: a cross
toolchain that consists of the ziglang wheel has no such tool."""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mpcompile.errors import TargetError

SYMTAB, RELA, REL, GROUP, SYMTAB_SHNDX, LLVM_ADDRSIG = 2, 4, 9, 17, 18, 0x6FFF4C03
"""Section types (ELF gABI, "Sections"; the last is LLVM's: a table of symbols by number, which only saves space)."""
UNDEFINED, COMMON = 0, 0xFFF2

_SECTION = {1: "<10I", 2: "<2I4Q2I2Q"}  # by EI_CLASS: name type flags addr offset size link info ...
_SYMBOL = {
    1: [("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2")],
    2: [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")],
}


def localize(path: Path, public: Collection[str]) -> None:
    """Rewrites the relocatable file: of what it defines, only `public` can be seen from outside. Little-endian ELF.

    Local symbols come first in a table, so symbols move, and with them every number that names one.
    """
    data = bytearray(path.read_bytes())
    kind = data[4] if data[:4] == b"\x7fELF" and data[5] == 1 else 0
    if kind not in _SECTION:
        raise TargetError(f"{path.name} is no little-endian ELF object: the C export is for Linux on x86-64 and ARM")
    (table,) = struct.unpack_from("<I" if kind == 1 else "<Q", data, 32 if kind == 1 else 40)
    size, count = struct.unpack_from("<2H", data, 46 if kind == 1 else 58)
    sections = [list(struct.unpack_from(_SECTION[kind], data, table + size * i)) for i in range(count)]
    at = next(i for i, s in enumerate(sections) if s[1] == SYMTAB)
    symbols = _view(data, sections[at], np.dtype(_SYMBOL[kind]))
    names = sections[sections[at][6]]
    strings = bytes(data[names[4] : names[4] + names[5]])
    keep = np.array([strings[n : strings.index(b"\0", n)].decode() in public for n in symbols["name"]])
    hidden = (symbols["info"] >> 4 != 0) & ~np.isin(symbols["shndx"], (UNDEFINED, COMMON)) & ~keep
    symbols["info"][hidden] &= 15
    order = np.argsort(symbols["info"] >> 4 != 0, kind="stable")
    moved = np.empty(len(order), "<u8")
    moved[order] = np.arange(len(order))
    symbols[:] = symbols[order]
    sections[at][7] = int((symbols["info"] >> 4 == 0).sum())
    for section in sections:
        if section[6] != at:
            continue
        if section[1] in (REL, RELA):
            word, bits = ("<u4", 8) if kind == 1 else ("<u8", 32)
            entry = np.dtype([("offset", word), ("info", word)] + [("addend", word)] * (section[1] == RELA))
            info = _view(data, section, entry)["info"]
            info[:] = (moved[info >> bits] << bits).astype(word) | info & ((1 << bits) - 1)
        elif section[1] == SYMTAB_SHNDX:
            longer = _view(data, section, np.dtype("<u4"))
            longer[:] = longer[order]
        elif section[1] == GROUP:
            section[7] = int(moved[section[7]])
        elif section[1] == LLVM_ADDRSIG:
            section[6] = 0  # linkers then take it for out of date
    for i, section in enumerate(sections):
        struct.pack_into(_SECTION[kind], data, table + size * i, *section)
    path.write_bytes(data)


def _view(data: bytearray, section: list[int], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(data, dtype, section[5] // dtype.itemsize, section[4])
