"""A search's folder → its records. Nothing is computed here; standard library only.

| file                     | holds                                                                  |
|--------------------------|------------------------------------------------------------------------|
| run.json                 | data, configuration, the network's layers, machine, versions           |
| front.json               | all finished points, the front, the calibration                        |
| race.json                | their times, taken in turn                                             |
| points/NAME/checked.json | answers on the device, comparison with the reference, time by layer    |
| phases.json, config.toml | how long everything took; what was asked for                           |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mpcompile.errors import ModelError, UsageError

FORMAT = 1
NEEDED = {
    "run.json": ("data", "config", "network", "points", "device", "machine", "versions"),
    "front.json": ("points", "front", "calibration"),
    "race.json": ("timings", "note"),
    "checked.json": ("deployed",),
    "phases.json": ("seconds", "began", "last"),
}
KINDS = ("searched", "uniform", "float", "int8")


@dataclass(frozen=True)
class SearchRun:
    """What a folder holds; None or empty where the run has not come so far."""

    path: Path
    about: dict
    points: list[dict]
    """As in front.json."""
    front: list[str]
    calibration: dict | None
    race: dict | None
    checked: dict[str, dict]
    phases: dict | None
    config: str | None

    @property
    def missing(self) -> list[str]:
        """What an unfinished run still lacks, in words; empty where it is whole."""
        have = {p["name"] for p in self.points}
        found = [f"point {name}" for name in self.about["points"] if name not in have]
        found += [f"check of {p['name']}" for p in self.points if p["kind"] != "int8" and p["name"] not in self.checked]
        return found + ([] if self.raced else ["the race of all points"])

    @property
    def raced(self) -> bool:
        """Whether every finished point was timed in one race."""
        return self.race is not None and bool(self.points) and all(p["raced"] is not None for p in self.points)

    def timing(self, name: str) -> dict:
        """A point's in the race; empty where not all were in one."""
        return self.race["timings"][name] if self.race and self.raced else {}


def read(path: Path) -> SearchRun:
    """Raises UsageError where `path` is no run of a search, ModelError where one of its files is damaged."""
    if not path.is_dir():
        raise UsageError(f"{path} is no folder" if path.exists() else f"there is no folder {path}")
    about = _json(path / "run.json")
    if about is None:
        raise UsageError(f"{path} holds no run of mpcompile search: it has no run.json")
    if about.get("format") != FORMAT:
        raise ModelError(
            f"{path}/run.json is not of format {FORMAT}: run the same search again with this version, which keeps "
            f"what can be kept"
        )
    front = _json(path / "front.json") or {"points": [], "front": [], "calibration": None}
    for point in front["points"]:
        if point.get("kind") not in KINDS or not isinstance(point.get("accuracy"), (int, float)):
            raise ModelError(f"{path}/front.json is damaged: it has a point that is none of {', '.join(KINDS)}")
    checked = {p["name"]: _json(path / "points" / p["name"] / "checked.json") for p in front["points"]}
    race = _json(path / "race.json")
    if race and not {p["name"] for p in front["points"]} <= set(race["timings"]):
        race = None  # of fewer points than there are now
    try:
        config = (path / "config.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        config = None
    return SearchRun(
        path,
        about,
        front["points"],
        front["front"],
        front["calibration"],
        race,
        {name: found for name, found in checked.items() if found},
        _json(path / "phases.json"),
        config,
    )


def _json(path: Path) -> dict | None:
    """A file's table; of one that was kept under a key, its result. None where there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if isinstance(data, dict) and "key" in data and "result" in data:
        data = data["result"]
    lacking = [key for key in NEEDED[path.name] if not isinstance(data, dict) or key not in data]
    if lacking and not (path.name == "run.json" and isinstance(data, dict) and "format" not in data):
        raise ModelError(f"{path} is damaged: it has no {lacking[0]}")
    return data
