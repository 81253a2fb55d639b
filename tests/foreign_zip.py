"""A .zip file whose members are compressed by a method that Python's zipfile does not know."""

import struct
from pathlib import Path

DIRECTORY_ENTRY = b"PK\x01\x02"
WAVPACK = 97


def use_foreign_compression(path: Path) -> None:
    """Changes the method that the file's directory names for each member; zipfile raises NotImplementedError at it."""
    data = bytearray(path.read_bytes())
    at = data.find(DIRECTORY_ENTRY)
    assert at >= 0
    while at >= 0:
        data[at + 10 : at + 12] = struct.pack("<H", WAVPACK)
        at = data.find(DIRECTORY_ENTRY, at + 4)
    path.write_bytes(data)
