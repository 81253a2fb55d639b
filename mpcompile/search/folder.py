"""A run's folder: results that are kept under the key of what they depend on, and a log that only grows.

    RUN_DIR/config.toml       the configuration, as it was given
            run.json          which data, device and versions; every option; the network's layers; the points to come
            log.jsonl         one line for everything that was finished, with its figures
            phases.json       seconds spent on each phase, over all the processes that worked here
            LUT.json          the latency table; LUT.json.cells keeps each number as soon as it is measured
            points/NAME/      model.onnx, model.mpc, weights.npz, metrics.json; search.npz for a searched one;
                              checked.json: against the reference, answers on the device, time by layer;
                              searched, trained, exported, compiled, measured.json: the steps, each with the length
                              and the hash of the files that it made
            race.json         all points timed in turn, interleaved, at the end
            front.json        all points, and the names of those on the Pareto front

Everything but the log appears whole or not at all. What was damaged since, by whatever, is noticed by its hash, said in
one line, and made again: a file by the step that made it, a JSON file that is read again (it ends with a hash of itself)
as if it had never been. `mpcompile report` reads the JSON files.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path
from mpcompile.locks import exclusive_folder
from mpcompile.search.stamp import difference, stamp_of

TEMPORARY = (".npz", ".json", ".onnx", ".mpc", ".tmp")
"""Suffixes of files.atomic_path's temporary files, whose names begin with a dot."""


def key_of(*inputs) -> str:
    """sha256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


class Folder:
    """One folder of results; `warn` is told in one line of what is damaged in it. Raises UsageError where it cannot be
    made."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda line: None):
        self.path, self.warn = path, warn
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {path}: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the system lets go of it when the process dies. What a killed one left half written is
        removed.

        Raises UsageError where another process is at work here.
        """
        with exclusive_folder(self.path):
            for left in self.path.rglob(".*.*"):
                if left.is_file() and left.suffix in TEMPORARY:
                    left.unlink()
            yield

    def inner(self, *names: str) -> Folder:
        return Folder(self.path.joinpath(*names), self.warn)

    def publish(self, name: str, data: dict) -> None:
        """JSON for others, whole or not at all."""
        with atomic_path(self.path / name) as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def write(self, name: str, data: dict) -> None:
        """The same, to be read again: with its hash."""
        data = json.loads(json.dumps(data))
        self.publish(name, {**data, "sha256": key_of(data)})

    def read(self, name: str) -> dict | None:
        """What `write` wrote; None where there is none, or it is damaged, which is said."""
        try:
            data = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            data = None
        if isinstance(data, dict) and data.pop("sha256", None) == key_of(data):
            return data
        self.warn(f"{self.path / name} is damaged: it counts as if it were not there")
        return None

    def once(self, name: str, key: str, work: Callable[[], dict], *, files: tuple[str, ...] = ()) -> dict:
        """The result in `name` where it was made with this key and its `files` are what `work` made them; else that of
        `work`, kept with a stamp of each file.

        A file that differs from its stamp is named, and then `work` makes all of them again.
        """
        found = self.read(name)
        if found and found.get("key") == key and set(found.get("files", {})) == set(files):
            differences = [(f, why) for f, stamp in found["files"].items() if (why := difference(self.path / f, stamp))]
            if not differences:
                return found["result"]
            for file, why in differences:
                self.warn(f"{self.path / file} {why}: it is made again")
        result = work()
        self.write(name, {"key": key, "result": result, "files": {f: stamp_of(self.path / f) for f in files}})
        return json.loads(json.dumps(result))

    def log(self, event: str, **figures) -> None:
        """Appends a line to log.jsonl with a single write; a line cut short by a kill is ended first. Raises UsageError
        where it cannot be written."""
        path = self.path / "log.jsonl"
        line = (
            json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **figures}) + "\n"
        )
        try:
            with open(path, "ab+", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    line = ("" if file.read(1) == b"\n" else "\n") + line
                file.write(line.encode())
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
