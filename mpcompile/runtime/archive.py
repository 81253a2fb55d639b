"""The bundle file M.mpc as an archive: one ZIP with manifest.json and members. No TVM here, no pickle ever.

Weights are stored as they are, all else deflated: inflating 20 MB takes a tenth of a second. manifest.json has the format
version, the versions of mpcompile and TVM, what the compiler wrote (variants.py says what), and size and sha256 of every
other member. The archive's comment holds the sha256 of manifest.json, so a chain of hashes covers every byte that is
used. That is integrity (a cut download, a bad disk), not trust: a bundle contains machine code, so open only bundles
whose maker you trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mpcompile.errors import ModelError, UsageError
from mpcompile.files import atomic_path, validated
from mpcompile.runtime.aligned import aligned
from mpcompile.runtime.manifest import Envelope

FORMAT = "mpcompile-bundle"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
WEIGHTS = ".weights"
"""What names of members that are weights end with."""
MAX_MANIFEST_BYTES = 256 << 20
CHUNK = 1 << 20
"""Bytes that are read at once."""
_MADE_ON = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same content gives the same bytes


@dataclass(frozen=True)
class Contents:
    """A bundle file that was read and whose every hash held: the manifest, and each member's bytes by name, those that are
    stored as they are at a multiple of ALIGNMENT bytes."""

    manifest: dict
    members: Mapping[str, bytes | memoryview]


def write_archive(path: str | os.PathLike, manifest: dict, members: Mapping[str, bytes | memoryview]) -> Path:
    """Writes M.mpc whole or not at all (a temporary file in the same folder, then renamed), also when interrupted.

    Format, versions and the table of members are added to the manifest. Raises UsageError where the file cannot be
    written.
    """
    from mpcompile import __version__

    path = Path(path)
    table = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()}
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "mpcompile": __version__, "tvm": tvm_version()}
    text = json.dumps({**head, **manifest, "members": table}, indent=1).encode()
    with atomic_path(path) as out, zipfile.ZipFile(out, "w") as archive:
        for name, data in {MANIFEST: text, **members}.items():
            info = zipfile.ZipInfo(name, _MADE_ON)
            info.compress_type = zipfile.ZIP_STORED if name.endswith(WEIGHTS) else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
        archive.comment = _comment(text)
    return path


def read_archive(path: str | os.PathLike) -> Contents:
    """Reads and checks the whole file: ZIP structure, format version, every size and hash. Runs nothing from it.

    Raises UsageError where there is no such file, ModelError (one line) where it is damaged, cut, or something else.
    """
    with _open(path) as (archive, manifest):
        return Contents(manifest, {name: _member(archive, manifest, name, path) for name in manifest["members"]})


def read_manifest(path: str | os.PathLike) -> dict:
    """The manifest alone, its own hash checked; for `inspect`. Raises as read_archive does."""
    with _open(path) as (_, manifest):
        return manifest


def tvm_version() -> str:
    """The installed apache-tvm's version, without importing it. "" where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version("apache-tvm")
    except metadata.PackageNotFoundError:
        return ""


def _comment(manifest: bytes) -> bytes:
    return f"{FORMAT} {FORMAT_VERSION} {hashlib.sha256(manifest).hexdigest()}".encode()


# Everything that zipfile and zlib are known to raise on bytes that are no proper archive.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    KeyError,
    IndexError,
    OSError,
)


@contextmanager
def _open(path: str | os.PathLike) -> Iterator[tuple[zipfile.ZipFile, dict]]:
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
    try:
        archive = zipfile.ZipFile(path)
    except PermissionError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGE as error:
        raise ModelError(f"{path} is not a bundle, or it was cut: {_reason(error)}") from error
    with archive:
        yield archive, _manifest(archive, path)


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict:
    words = archive.comment.decode("ascii", "replace").split(" ")
    if words[0] != FORMAT or len(words) != 3:
        raise ModelError(f"{path} is not a bundle of mpcompile")
    if words[1] != str(FORMAT_VERSION):
        raise ModelError(
            f"{path} has bundle format {words[1]}; this version reads {FORMAT_VERSION}: compile the model again"
        )
    text = _read(archive, MANIFEST, path, MAX_MANIFEST_BYTES)
    if _comment(text) != archive.comment:
        raise ModelError(f"{path} is damaged: the sha256 of {MANIFEST} does not hold")

    def wrong(why: str) -> ModelError:
        return ModelError(f"{path}: {MANIFEST} is not one of this bundle format ({why})")

    try:
        manifest = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(_reason(error)) from error
    envelope = validated(manifest, Envelope, wrong)
    if (envelope.format, envelope.format_version) != (FORMAT, FORMAT_VERSION):
        raise wrong(f"it says {envelope.format} {envelope.format_version}")
    names, listed = sorted(archive.namelist()), sorted([MANIFEST, *manifest["members"]])
    if names != listed:
        raise ModelError(f"{path} is damaged: its members are {', '.join(names)}, not {', '.join(listed)}")
    return manifest


def _member(archive: zipfile.ZipFile, manifest: dict, name: str, path: str | os.PathLike) -> bytes | memoryview:
    entry = manifest["members"][name]
    stored = archive.getinfo(name).compress_type == zipfile.ZIP_STORED
    data = (_read_stored if stored else _read)(archive, name, path, entry["bytes"])
    if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ModelError(f"{path} is damaged: the sha256 of {name} does not hold")
    return data


def _read(archive: zipfile.ZipFile, name: str, path: str | os.PathLike, limit: int) -> bytes:
    """A member's bytes, at most `limit`: a forged size cannot make us inflate without end."""
    try:
        with archive.open(name) as member:
            data = member.read(limit + 1)
            member.read(1)  # reaching the end is what makes zipfile compare the checksum
    except _DAMAGE as error:
        raise ModelError(f"{path} is damaged: {name}: {_reason(error)}") from error
    if len(data) > limit:
        raise ModelError(f"{path} is damaged: {name} is larger than its manifest says")
    return data


def _read_stored(archive: zipfile.ZipFile, name: str, path: str | os.PathLike, size: int) -> memoryview:
    """The bytes of a member of that size that is not compressed, in their place: no copy of them is made."""
    found = archive.getinfo(name).file_size
    if found != size or size > os.path.getsize(path):
        kind = "larger" if found > size else "smaller"
        raise ModelError(f"{path} is damaged: {name} is {kind} than its manifest says")
    data, at = aligned(size).data, 0
    try:
        with archive.open(name) as member:
            while chunk := member.read(min(CHUNK, size - at)):
                data[at : at + len(chunk)] = chunk
                at += len(chunk)
            member.read(1)  # as in _read
    except _DAMAGE as error:
        raise ModelError(f"{path} is damaged: {name}: {_reason(error)}") from error
    if at != size:
        raise ModelError(f"{path} is damaged: {name} was cut")
    return data


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
