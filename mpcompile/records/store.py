"""Tuned schedules on disk: one JSON file a family of targets, read by key, written whole. No TVM here.

    {"format": 1, "family": "x86-64-v3", "records": [
     {"key": {…}, "tile": {…}, "seconds": 8.1e-05, "default_seconds": 8.4e-05, "default_tile": {…},
      "cpu": "…", "threads": 1, "trials": 64, "tvm": "…", "kernels": "…"}, …]}

`key` is key.layer_key's. Where the default schedule won, `tile` is the default's. Bytes never depend on a record, only
speed does; so a record of another CPU, or of older kernels, is used, and says what it was measured on. A layer has a
record for each number of threads that it was tuned on; whoever compiles does not know on how many it will run, and
takes the one for the fewest (see Records).

`kernels` is the fingerprint of the code that compiled and measured it (latency/fingerprint.py). Tuning a layer whose
record names another one confirms it by new trials.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field, structs

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path, validated
from mpcompile.records.key import FARTHEST, distance, text_of

FORMAT = 1
NONE = "none"
"""As a folder of records: use none, not even those that ship."""


Positive = Annotated[int, Meta(ge=1)]
Sizes = Annotated[list[Positive], Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    key: dict
    tile: dict
    seconds: Seconds
    default_seconds: Seconds
    default_tile: dict
    cpu: str
    threads: Positive
    trials: Positive
    tvm: str
    kernels: str

    @staticmethod
    def name(key: dict, threads: int) -> tuple[str, int]:
        """What there is one record of in a file."""
        return text_of(key), threads

    @property
    def identity(self) -> tuple[str, int]:
        return self.name(self.key, self.threads)

    @property
    def tuned(self) -> bool:
        """Whether something beat the default."""
        return self.tile != self.default_tile

    @property
    def gain(self) -> float:
        """How many times faster than the default, measured in turn with it."""
        return self.default_seconds / self.seconds


@dataclass(frozen=True)
class Found:
    """A record for a layer; `transferred`: it is of another shape."""

    record: Record
    transferred: bool


class Records:
    """Records of one family of targets, by key. Those of a later folder win over those of an earlier one; within one,
    the record for the fewest threads.

    Timed on Zen 4 on two threads, six layers of ResNet-18 W1A2 were 1.09 times as fast as with default schedules under
    those tuned on one thread, and 1.03 times under those tuned on two: what is good for one core is good for each of
    two, and is measured with less noise.
    """

    def __init__(self, *folders: Iterable[Record]):
        self.by_key: dict[str, Record] = {}
        for records in folders:
            self.by_key |= {text_of(r.key): r for r in sorted(records, key=lambda r: -r.threads)}

    def __len__(self) -> int:
        return len(self.by_key)

    @property
    def fingerprint(self) -> str:
        """A hash of what decides tiles: of which layers there are records, and their tiles. 16 hexadecimal digits."""
        tiles = [[key, r.tile, r.tuned] for key, r in sorted(self.by_key.items())]
        return hashlib.sha256(json.dumps(tiles, sort_keys=True).encode()).hexdigest()[:16]

    def find(self, key: dict, fits: Callable[[dict], bool]) -> Found | None:
        """The record of that key, else the nearest shape's, of those whose tile fits; None where none is near.

        `fits(tile)` tells whether a tile can be this layer's.
        """
        exact = self.by_key.get(text_of(key))
        if exact is not None and fits(exact.tile):
            return Found(exact, False)
        near = [(d, text, r) for text, r in self.by_key.items() if (d := distance(r.key, key)) is not None]
        for far, _, record in sorted(near, key=lambda found: found[:2]):
            if far > FARTHEST:
                break
            if not record.tuned:
                return None  # the nearest shape had no better schedule than the default
            if fits(record.tile):
                return Found(record, True)
        return None


def family_of(target) -> str:
    """The family whose records a target (mpcompile.targets.Target) uses: what decides its kernels."""
    if target.arch != "x86_64":
        return f"{target.arch}-dotprod" if "asimddp" in target.features else target.arch
    if target.has_vnni and "avx512_vpopcntdq" in target.features:
        return "x86-64-v4-vnni-vpopcntdq"
    return {512: "x86-64-v4", 256: "x86-64-v3"}.get(target.vector_bits, "x86-64-v2")


def shipped_records() -> Path:
    """The folder of the records that ship."""
    return Path(str(resources.files("mpcompile.schedules"))) / "records"


def records_for(target, folder: str | os.PathLike | None = None) -> Records:
    """What ships for the target's family, and over it what `folder` holds; with "none", nothing.

    Raises UsageError naming the file, and the key in it, that is wrong, or a folder without records of any family.
    """
    if folder is not None and os.fspath(folder) == NONE:
        return Records()
    family = family_of(target)
    folders = [shipped_records()]
    if folder is not None:
        if not Path(folder).is_dir():
            raise UsageError(f"there is no folder of records {folder}: name one that `mpcompile tune` wrote, or {NONE}")
        if not any(Path(folder).glob("*.json")):
            raise UsageError(f"there are no records in {folder}: name a folder that `mpcompile tune` wrote, or {NONE}")
        folders.append(Path(folder))
    paths = [f / f"{family}.json" for f in folders]
    return Records(*(read_records(path, family) for path in paths if path.exists()))


def read_records(path: str | os.PathLike, family: str) -> list[Record]:
    """Raises UsageError naming the file and the key that is wrong."""

    def wrong(what: str) -> UsageError:
        return UsageError(f"{path}: {what}")

    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise wrong(f"is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise wrong(f"format must be {FORMAT}: these are no records, or of another version")
    if data.get("family") != family:
        raise wrong(f"family is {data.get('family')!r}, the file's name says {family}")
    found = validated(data, _File, wrong)
    for i, record in enumerate(found.records):
        validated(record.key, _Key, wrong, f"records[{i}].key")
    return found.records


def write_records(path: str | os.PathLike, family: str, records: Iterable[Record]) -> None:
    """The whole file, sorted by key, a record a line."""
    lines = [json.dumps(structs.asdict(r)) for r in sorted(records, key=lambda r: r.identity)]
    with atomic_path(path) as temporary:
        temporary.write_text(
            f'{{"format": {FORMAT}, "family": {json.dumps(family)}, "records": [\n' + ",\n".join(lines) + "\n]}\n"
        )


class _Part(Struct, forbid_unknown_fields=True):
    """What key.py writes of a part; a distance between shapes divides by its numbers."""

    family: str
    step: str
    input: Sizes = field(name="in")
    kernel: Sizes
    strides: Sizes
    groups: Positive


class _Key(Struct, forbid_unknown_fields=True):
    out: Sizes
    parts: list[_Part]
    reads: list[str]
    epilogue: int
    writes: list[str]


class _File(Struct, forbid_unknown_fields=True):
    format: int
    family: str
    records: list[Record]
