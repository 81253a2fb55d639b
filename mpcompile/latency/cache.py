"""Measured times on disk: a file of JSON lines that only grows, so that a process may die at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mpcompile.errors import UsageError


class Cache:
    """key → record. Each `put` is on disk when it returns; a line that was cut short is as if it had never been."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._records: dict[str, dict] = {}
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            text = b""
        except OSError as error:
            raise UsageError(f"cannot read the cache {self.path}: {error.strerror}") from error
        for line in text.splitlines():
            try:
                record = json.loads(line)
                self._records[record["key"]] = record
            except (ValueError, KeyError, TypeError):
                continue
        self._cut = bool(text) and not text.endswith(b"\n")

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> dict | None:
        return self._records.get(key)

    def put(self, key: str, record: dict) -> None:
        """Appends one line with a single write. Raises UsageError where the file cannot be written."""
        record = {"key": key, **record}
        line = json.dumps(record).encode() + b"\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(b"\n" * self._cut + line)
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write the cache {self.path}: {error.strerror}") from error
        self._cut = False
        self._records[key] = record
