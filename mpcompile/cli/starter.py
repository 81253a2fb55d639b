"""A configuration to begin with: every key with what it means, commented out where it is left as it is.

[search]
method = "ilp"                # the search method: "ilp" or …
# epochs = 10.0               # epochs of each budget's search: a number above 0
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpcompile.errors import UsageError
from mpcompile.search import config
from mpcompile.search.schema import ConfigKey, keys

LINE, COLUMN = 118, 34
COMMON: Mapping[str, Any] = {
    "search.method": "ilp",
    "objective.targets": ["w2a2", "w2a4", "60 %"],
    "baselines.uniform": ["w1a1", "w2a2", "w4a4", "w8a8"],
    "retrain.still": 0.02,
    "measure.target": "native",
}


@dataclass(frozen=True)
class Starter:
    """`about`: one line of what is searched. `given`: keys, by their paths, that are not left as they are."""

    about: str
    given: Mapping[str, Any]


def _residual(widths: list[int], blocks: list[int]) -> Mapping[str, Any]:
    return {"data.path": "DATA", "network.widths": widths, "network.blocks": blocks}


STARTERS: Mapping[str, Starter] = {
    "digits": Starter("a small residual CNN, on scikit-learn's digits in clutter: runs as it is", {}),
    "resnet20": Starter("ResNet-20, on small images of yours", _residual([16, 32, 64], [3, 3, 3])),
    "resnet18": Starter(
        "ResNet-18 as for small images (a 3×3 stem, no pool), on images of yours",
        _residual([64, 128, 256, 512], [2] * 4),
    ),
    "module": Starter(
        "a module of yours: task() in nets.py, beside this file, returns it and its data",
        {"module": "nets:task", "pretrain.epochs": 0.0},
    ),
}


def starter(name: str) -> str:
    """The text of a TOML. Raises UsageError at a name that there is not."""
    if name not in STARTERS:
        raise UsageError(f"there is no {name} to begin with; {', '.join(STARTERS)} would be accepted")
    chosen = STARTERS[name]
    given = {**COMMON, **chosen.given}
    return "\n".join([f"# {chosen.about}.", "# mpcompile search THIS.toml -o RUN_DIR", *_lines(given), ""])


def _lines(given: Mapping[str, Any]) -> Iterator[str]:
    section = ""
    for key in keys(config.Config):
        if not _told(key, given):
            continue
        if key.section != section:
            section = key.section
            yield from ["", f"[{section}]"]
        yield from _line(key, given)


def _told(key: ConfigKey, given: Mapping[str, Any]) -> bool:
    """Options of other methods, and what a module of one's own replaces, are left out."""
    method = key.section.removeprefix("search.")
    if method in config.METHOD_NAMES:
        return method == given["search.method"]
    return not (given.get("module") and key.section in ("data", "network"))


def _line(key: ConfigKey, given: Mapping[str, Any]) -> Iterator[str]:
    value = given.get(key.path, key.default)
    text = f"{'' if key.path in given else '# '}{key.name} = {json.dumps(value, ensure_ascii=False)}"
    comment = textwrap.wrap(f"{key.description}: {key.type}", LINE - COLUMN - 2)
    if len(text) >= COLUMN:
        yield text
        text = ""
    for line in comment:
        yield f"{text:<{COLUMN}}# {line}"
        text = ""
