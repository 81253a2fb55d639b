"""Whether a file is still what was written: its length and sha256, as a step of a search keeps them beside its result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypedDict


class Stamp(TypedDict):
    """`bytes`: the file's length."""

    bytes: int
    sha256: str


def sha256_of(path: Path) -> str:
    """Of what the file holds, in hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> Stamp:
    """Raises OSError where the file cannot be read."""
    return Stamp(bytes=path.stat().st_size, sha256=sha256_of(path))


def difference(path: Path, stamp: Stamp) -> str | None:
    """In what the file differs from the one that was stamped, in words; None where it does not."""
    try:
        size = path.stat().st_size
        if size != stamp["bytes"]:
            return f"has {size} bytes, not {stamp['bytes']}"
        return None if sha256_of(path) == stamp["sha256"] else "holds other bytes than were written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
