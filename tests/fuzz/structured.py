"""Random structural edits of what JSON and TOML hold."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

ODD = (
    None, True, False, 0, -1, 1, 63, 64, 4096, 1 << 31, 1 << 40, 1 << 62, 1 << 70, -(1 << 40), 0.5, -0.0, 1e300,
    math.nan, math.inf, -math.inf, "", "x", "cpu", "workspace", "weights", "int8", "O", "float32", "é\n\x00", [], [[]],
    {}, {"x": 1}, [1, 2, 3], ["input", 0, "float32", [4, 8, 8]],
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside, itself included."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def edit(found: dict | list, rng: random.Random) -> str:
    """One structural edit, in place; what it was."""
    *way, key = rng.choice([path for path in places(found) if path] or [("x",)])
    parent: Any = found
    for step in way:
        parent = parent[step]
    if not parent:
        return "nothing"
    what = rng.choice(("odd", "odd", "nudge", "drop", "twice", "swap", "more", "elsewhere"))
    if what == "drop":
        del parent[key]
    elif what == "nudge" and type(parent[key]) is int:
        parent[key] += rng.choice((-64, -1, 1, 64, 1000))
    elif what == "twice" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif what == "swap" and len(parent) > 1:
        other = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[key], parent[other] = parent[other], parent[key]
    elif what == "more" and isinstance(parent[key], dict):
        parent[key]["unknown"] = rng.choice(ODD)
    elif what == "elsewhere":
        source: Any = found
        for step in rng.choice([path for path in places(found) if path]):
            source = source[step]
        parent[key] = copy.deepcopy(source)
    else:
        parent[key] = copy.deepcopy(rng.choice(ODD))
    return f"{what} at {'.'.join(map(str, (*way, key)))}"


def edited(value: dict, rng: random.Random) -> tuple[dict, str]:
    """A copy with one or two structural edits, and what they were."""
    found = copy.deepcopy(value)
    said = [edit(found, rng) for _ in range(rng.choice((1, 1, 2)))]
    return found, ", ".join(said)


def toml(table: dict) -> str:
    """As TOML: what it has no word for (null) is left out."""
    lines = [f"{_key(k)} = {text}" for k, v in table.items() if not isinstance(v, dict) and (text := _value(v))]
    for name, inner in table.items():
        if isinstance(inner, dict):
            lines += ["", f"[{_key(name)}]", *(f"{_key(k)} = {text}" for k, v in inner.items() if (text := _value(v)))]
    return "\n".join(lines) + "\n"


def _key(name: Any) -> str:
    return json.dumps(str(name), ensure_ascii=True)


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "[" + ", ".join(filter(None, map(_value, value))) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {text}" for k, v in value.items() if (text := _value(v))) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, float):
        return repr(value) if "." in repr(value) else f"{value:.1e}"
    return json.dumps(value)


def spoiled(text: bytes, rng: random.Random) -> bytes:
    """Cut, or with bytes changed, put in or taken out."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0:
            data = data[:at]
        elif what == 1:
            data[at:at] = rng.choice(
                (b"\x00", b"\xff", b"{", b"[" * 3000, b'"', b"\n", b"9" * 5000, b"1e999", b"\xef\xbb\xbf", b"\\ud800")
            )
        elif what == 2:
            del data[at : at + rng.randint(1, 30)]
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)
