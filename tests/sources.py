"""The files that belong to the project: of a checkout by git, of an unpacked sdist, which has no git, all that is there."""

from __future__ import annotations

import fnmatch
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OF_AN_SDIST = ("PKG-INFO", "setup.cfg")
"""What setuptools adds to it."""


def sources() -> list[str]:
    """Paths from ROOT, new files included, ignored ones not. A link is a file."""
    return _by_git() if (ROOT / ".git").exists() else _by_walking()


def package() -> list[str]:
    """The files of the package, as they are called in it: two rooms stand at the top and are linked, in an sdist copied."""
    names = {f"mpcompile/{n}" if n.startswith(("schedules/", "targets/")) else n for n in sources()}
    return sorted(name for name in names if name.startswith("mpcompile/") and (ROOT / name).is_file())


def _by_git() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def _by_walking() -> list[str]:
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]

    def kept(names: list[str]) -> list[str]:
        return sorted(n for n in names if not any(fnmatch.fnmatch(n, pattern) for pattern in ignored))

    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = kept(folders)
        found += [str((Path(folder) / name).relative_to(ROOT)) for name in kept(files)]
    return [name for name in found if name not in OF_AN_SDIST]
