"""Text files of what each phase made, for --dump-ir: 01-import.txt, 02-layers-fold_transposes.txt, …"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path


class Dump:
    """Writes numbered text files; without a folder it does nothing, and what would be printed is not made.

    Raises UsageError where the folder or a file cannot be written.
    """

    def __init__(self, folder: Path | None):
        self.folder, self.count = folder, 0
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for old in folder.glob("[0-9][0-9]-*.txt"):  # of an earlier run, which may have had more phases
                    old.unlink()
            except OSError as error:
                raise UsageError(f"cannot dump into {folder}: {error.strerror}") from error

    def __call__(self, phase: str, text: Callable[[], str]) -> None:
        if self.folder is not None:
            self.count += 1
            path = self.folder / f"{self.count:02}-{phase}.txt"
            found = text()
            with atomic_path(path) as temporary:
                temporary.write_text(found)
