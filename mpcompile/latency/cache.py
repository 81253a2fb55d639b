"""Measured times on disk: a file of JSON lines that only grows, so that a process may die at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mpcompile.errors import UsageError


class Cache:
    """key → record, and kernel → record where a record names its kernel: what was measured, whatever asked for it.

    What `put` takes is on disk when it returns; a line that was cut short is as if it had never been.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._records: dict[str, dict] = {}
        self._kernels: dict[str, dict] = {}
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            text = b""
        except OSError as error:
            raise UsageError(f"cannot read the cache {self.path}: {error.strerror}") from error
        for line in text.splitlines():
            try:
                self._keep(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
        self._cut = bool(text) and not text.endswith(b"\n")

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[dict]:
        """The records, in the order in which their keys were first put."""
        return iter(self._records.values())

    def get(self, key: str) -> dict | None:
        return self._records.get(key)

    def of_kernel(self, kernel: str) -> dict | None:
        """The record of any key whose record has "kernel": `kernel`."""
        return self._kernels.get(kernel)

    def put(self, records: Iterable[dict]) -> None:
        """Appends a line for each, as a rule with a single write; each has its "key". Raises UsageError where the file
        cannot be written."""
        records = list(records)
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        try:
            with open(self.path, "ab", buffering=0) as file:
                left = b"\n" * self._cut + lines
                while left:  # a disk that fills up takes a part, and says so only when it is given the rest
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
        except OSError as error:
            self._cut = True
            raise UsageError(f"cannot write the cache {self.path}: {error.strerror}") from error
        self._cut = False
        for record in records:
            self._keep(record)

    def _keep(self, record: dict) -> None:
        self._records[record["key"]] = record
        if "kernel" in record:
            self._kernels[record["kernel"]] = record
