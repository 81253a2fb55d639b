"""Steps that are skipped when nothing they depend on has changed. Standard library only.

`steps.json` in the run's folder keeps, of each finished step, the key of its inputs, the sha256 of the files it left
and the result it returned. A step is done again when its key differs or one of its files is missing or has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from mpcompile.files import atomic_path


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def key_of(inputs) -> str:
    """sha256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def source_hash(paths: Iterable[Path]) -> str:
    """One hash for source files; of a folder, every .py, .c and .toml file in it."""
    files = sorted(
        f for p in paths for f in (p.rglob("*") if p.is_dir() else [p]) if f.suffix in (".py", ".c", ".toml")
    )
    return key_of([[f.name, file_hash(f)] for f in files])


class Steps:
    """The steps of one run folder."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self.say = folder, say
        self.file = folder / "steps.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.done: dict[str, dict] = self._read()

    def run(self, name: str, title: str, inputs, outputs: list[str], work: Callable[[str], dict]) -> dict:
        """`work(key)` leaves `outputs` in the folder and returns what JSON can say; its result, now or from before."""
        key = key_of(inputs)
        before = self.done.get(name)
        if before and before["key"] == key and all(self._same(f, h) for f, h in before["outputs"].items()):
            self.say(f"{title}: done before")
            return before["result"]
        self.say(title)
        result = work(key)
        self.done[name] = {"key": key, "outputs": {f: file_hash(self.folder / f) for f in outputs}, "result": result}
        with atomic_path(self.file) as out:
            out.write_text(json.dumps(self.done, indent=1))
        return result

    def forget(self) -> None:
        """Every step is to be done again, and no half-done training is gone on with."""
        self.done = {}
        self.file.unlink(missing_ok=True)
        for part in self.folder.glob("*.part.npz"):
            part.unlink()

    def _read(self) -> dict[str, dict]:
        """A damaged file counts as none: every step is then done again."""
        try:
            return json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}

    def _same(self, name: str, known: str) -> bool:
        file = self.folder / name
        return file.exists() and file_hash(file) == known
