"""An exported network as a program that times it on a board: runner.c, linked statically with the library."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from mpcompile.compiler.c_export.build import HERE, Tools
from mpcompile.compiler.linker import run_tool
from mpcompile.errors import UsageError

MACHINES = {40: "armv7l", 62: "x86_64", 183: "aarch64"}
"""ELF's e_machine → architecture."""


@dataclass(frozen=True)
class Library:
    """What `compile --format c` left in a folder. `target`: the board that it says it was compiled for."""

    folder: Path
    name: str
    arch: str
    target: str
    ports: tuple[str, ...]
    """Macros of the inputs' and outputs' sizes, as the header has them."""


def exported(folder: str | os.PathLike) -> Library:
    """Raises UsageError where `folder` holds no exported network."""
    folder = Path(folder)
    libraries = sorted(folder.glob("lib*.a"))
    if len(libraries) != 1:
        raise UsageError(
            f"{folder} holds {len(libraries)} libraries, and must hold the one that `mpcompile compile "
            "--format c` writes"
        )
    name = libraries[0].stem.removeprefix("lib")
    data = libraries[0].read_bytes()
    at = data.find(b"\x7fELF")
    arch = MACHINES.get(struct.unpack_from("<H", data, at + 18)[0]) if at >= 0 else None
    try:
        header = (folder / f"{name}.h").read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{folder} has no {name}.h ({error.strerror}): mpcompile compile --format c writes it"
        ) from error
    ports = tuple(re.findall(rf"^#define ({name.upper()}_(?:INPUT|OUTPUT)_\d+_SIZE)\b", header, re.MULTILINE))
    target = re.search(r"compiled by mpcompile \S+ for (\S+)\.$", header, re.MULTILINE)
    if arch is None or target is None or not ports:
        raise UsageError(f"{libraries[0]} and its header are not what mpcompile compile --format c writes")
    return Library(folder, name, arch, target[1], ports)


def build_runner(library: Library, output: Path) -> Path:
    """Links the runner. Raises TargetError where the compiler is missing or fails."""
    tools = Tools.find(library.arch, f"a program for {library.target}", static=True)
    names = [f"-DLower={library.name}", f"-DUpper={library.name.upper()}", f"-DSizes={','.join(library.ports)}"]
    run_tool(
        [
            *tools.cc,
            "-std=gnu11",
            "-O2",
            "-static",
            "-pthread",
            *names,
            "-include",
            (library.folder / f"{library.name}.h").resolve(),
            HERE / "runner.c",
            (library.folder / f"lib{library.name}.a").resolve(),
            "-lm",
            "-o",
            output,
        ],
        output.parent,
        "did not link the runner",
    )
    return output
