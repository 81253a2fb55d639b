"""What runs of the harness came to: totals.json beside this file, and the table between the marks of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.pages import replaced
from mpcompile.files import atomic_path
from tests.fuzz.kind import Kind

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("totals.json")
SOAK = Path(__file__).with_name("soak.json")
SOAKED = {
    "batch": "times fifty runs",
    "run_new": "bundles opened, run, traced and closed",
    "fork": "forked children that open and run",
    "session": "sessions of a device",
}
COUNTED = {"files": "mappings of files", "mappings": "all mappings"}
PAGE = ROOT / "docs" / "explanation" / "faults.md"


@dataclass(frozen=True)
class Totals:
    """Of a kind's latest counted run."""

    kind: str
    inputs: int
    outcomes: dict[str, int]
    faults: int
    seconds: float
    seed: int

    @staticmethod
    def of(kind: Kind, outcomes: Mapping[str, int], faults: int, seconds: float, seed: int) -> Totals:
        return Totals(kind.name, sum(outcomes.values()), dict(outcomes), faults, round(seconds, 1), seed)


def read() -> dict[str, Totals]:
    if not FILE.exists():
        return {}
    return {name: Totals(**found) for name, found in json.loads(FILE.read_text()).items()}


def table(totals: Mapping[str, Totals]) -> str:
    lines = ["| kind | inputs | what became of them | faults | seconds |", "|---|---|---|---|---|"]
    for t in totals.values():
        words = ", ".join(f"{n:,} {word}" for word, n in sorted(t.outcomes.items(), key=lambda item: -item[1]))
        lines.append(f"| {t.kind} | {t.inputs:,} | {words} | {t.faults} | {t.seconds:,.0f} |")
    return "\n".join(lines)


def write(*found: Totals) -> None:
    """Into the file and the page, beside other kinds' that are there."""
    totals = read() | {t.kind: t for t in found}
    with atomic_path(FILE) as out:
        out.write_text(json.dumps({name: asdict(t) for name, t in totals.items()}, indent=1) + "\n")
    _into_page("totals", table(totals))


def soak_table(found: Mapping) -> str:
    first, last = found["samples"][0], found["samples"][-1]
    done = ", ".join(f"{n:,} {SOAKED[what]}" for what, n in sorted(found["operations"].items()))
    lines = [f"In {found['seconds']:,.0f} seconds: {done}.", "", "| | after warming up | at the end |", "|---|---|---|"]
    for key in ("threads", "descriptors", "children", "files", "mappings"):
        lines.append(f"| {COUNTED.get(key, key)} | {first[key]:,} | {last[key]:,} |")
    lines.append(f"| memory | {first['rss'] / 2**20:.1f} MiB | {last['rss'] / 2**20:.1f} MiB |")
    return "\n".join(lines)


def write_soak(found: Mapping) -> None:
    with atomic_path(SOAK) as out:
        out.write_text(json.dumps(found, indent=1) + "\n")
    _into_page("soak", soak_table(found))


def _into_page(mark: str, content: str) -> None:
    text = replaced(PAGE.read_text(encoding="utf-8"), mark, content)
    with atomic_path(PAGE) as out:
        out.write_text(text, encoding="utf-8")
