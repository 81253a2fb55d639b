"""The geometry of the figures: where everything lies, in pixels of a viewBox. The template draws it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mpcompile.report import words
from mpcompile.report.axes import Axis, positive, shares
from mpcompile.report.findings import interval, seconds, time_of
from mpcompile.report.read import SearchRun

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 14, 58
LETTER, LINE = 6.9, 15
"""Pixels of a letter and of a line of labels, about: for keeping labels apart."""
STEPS = 24
"""NodeMap on each piece of the line that labels keep off."""
SIDE = 360
"""Of the square figures."""


def front(run: SearchRun) -> dict | None:
    """Accuracy over latency of all points; None where none has a time. A point's latency carries its quartiles, its
    accuracy Wilson's interval."""
    timed = [p for p in run.points if seconds(p, run)]
    if not timed:
        return None
    count = run.about["data"]["test"]
    targets = [p for p in timed if p["target"] and p["unit"] == "s"]
    x = positive([1e3 * time_of(p, run) for p in timed] + [1e3 * p["target"] for p in targets], LEFT, WIDTH - RIGHT)
    y = shares([p["accuracy"] for p in timed], count, HEIGHT - BOTTOM, TOP)
    marks = [_mark(p, run, x, y, count) for p in timed]
    line = _upper(sorted((m for m in marks if m["kind"] == "searched"), key=lambda m: m["x"]))
    _place(marks, line)
    return {
        **_frame(x, y, WIDTH, HEIGHT),
        "x_title": f"latency of one image in ms{' (logarithmic)' if x.scale is not float else ''}",
        "y_title": f"accuracy on {count} test images{' (by logarithm of the error)' if y.scale is not float else ''}",
        "x_ticks": [{"at": x(t), "text": f"{t:g}"} for t in x.ticks],
        "y_ticks": [{"at": y(t), "text": f"{round(100 * t, 4):g} %"} for t in y.ticks],
        "marks": marks,
        "line": " ".join(f"{m['x']},{m['y']}" for m in line),
        "targets": [
            {"x": x(1e3 * p["target"]), "title": f"budget of {words.label(p)}: {words.time(p['target'])}, predicted"}
            for p in targets
        ],
    }


def _upper(marks: Sequence[dict]) -> list[dict]:
    """Those of the searched marks, fastest first, that no faster one equals or beats."""
    kept: list[dict] = []
    for m in marks:
        if not kept or m["accuracy"] > kept[-1]["accuracy"]:
            kept.append(m)
    return kept


def _mark(point: dict, run: SearchRun, x: Axis, y: Axis, count: int) -> dict:
    own = time_of(point, run)
    timing = run.timing(point["name"])
    low, high = timing.get("low") or own, timing.get("high") or own
    least, most = interval(point["accuracy"], count)
    return {
        "kind": point["kind"],
        "label": words.label(point),
        "title": f"{words.label(point)}: {words.share(point['accuracy'], count)} in {words.time(own)}",
        "accuracy": point["accuracy"],
        "x": x(1e3 * own),
        "y": y(point["accuracy"]),
        "low": x(1e3 * low),
        "high": x(1e3 * high),
        "least": y(least),
        "most": y(most),
    }


def _place(marks: list[dict], line: list[dict]) -> None:
    """Gives each mark's label a place where it covers no other label, no mark and nothing of the line, if there is
    one."""
    taken = [(m["x"] - 7, m["y"] - 7, m["x"] + 7, m["y"] + 7) for m in marks]
    for a, b in itertools.pairwise(line):
        for part in range(1, STEPS):
            x, y = (a[k] + (b[k] - a[k]) * part / STEPS for k in ("x", "y"))
            taken.append((x - 1, y - 1, x + 1, y + 1))
    for m in sorted(marks, key=lambda m: (m["kind"] != "searched", m["x"])):
        wide = LETTER * len(m["label"])
        places = []
        for dx, dy, anchor in (
            (10, -7, "start"),
            (-10, -7, "end"),
            (10, 16, "start"),
            (-10, 16, "end"),
            (0, -14, "middle"),
            (0, 24, "middle"),
            (10, -22, "start"),
            (-10, -22, "end"),
            (10, 31, "start"),
            (-10, 31, "end"),
        ):
            left = m["x"] + dx - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
            base = m["y"] + dy
            box = (left, base - LINE + 3, left + wide, base + 3)
            inside = box[0] > LEFT and box[2] < WIDTH - 2 and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            cover = sum(a < box[2] and box[0] < c and b < box[3] and box[1] < d for a, b, c, d in taken)
            places.append((not inside, cover, len(places), m["x"] + dx, base, anchor, box))
        _, _, _, m["label_x"], m["label_y"], m["anchor"], box = min(places)
        taken.append(box)


def networks(run: SearchRun) -> dict | None:
    """Predicted over measured seconds of whole networks."""
    found = [
        (1e3 * p["measured"], 1e3 * p["predicted"], p["kind"], words.label(p))
        for p in run.points
        if p["measured"] and p["predicted"]
    ]
    return _square(found, "measured in ms", "predicted in ms") if found else None


def layers(by_point: dict[str, list[dict]], labels: dict[str, str], kinds: dict[str, str]) -> dict | None:
    """The same of layers, of all points."""
    found = [
        (1e6 * row["measured"], 1e6 * row["predicted"], kinds[name], f"{labels[name]}, {row['name']}")
        for name, rows in by_point.items()
        for row in rows
        if row["measured"] and row["predicted"] and row["predicted"] > 0
    ]
    return _square(found, "measured in µs", "predicted in µs") if found else None


def _square(found: list[tuple[float, float, str, str]], x_title: str, y_title: str) -> dict:
    values = [v for m, p, *_ in found for v in (m, p)]
    x = positive(values, LEFT, SIDE - RIGHT)
    y = Axis(x.lo, x.hi, SIDE - BOTTOM, TOP, x.ticks, x.scale)
    band = [
        (x(x.lo), y(0.95 * x.lo)),
        (x(x.hi), y(0.95 * x.hi)),
        (x(x.hi), y(1.05 * x.hi)),
        (x(x.lo), y(1.05 * x.lo)),
    ]
    return {
        **_frame(x, y, SIDE, SIDE),
        "x_title": x_title,
        "y_title": y_title,
        "x_ticks": [{"at": x(t), "text": f"{t:g}"} for t in x.ticks],
        "y_ticks": [{"at": y(t), "text": f"{t:g}"} for t in y.ticks],
        "band": " ".join(f"{a},{b}" for a, b in band),
        "marks": [
            {
                "kind": kind,
                "x": x(m),
                "y": y(p),
                "title": f"{name}: predicted {words.number(p)}, measured {words.number(m)}, {words.percent(p / m - 1)}",
            }
            for m, p, kind, name in found
        ],
    }


def _frame(x: Axis, y: Axis, width: float, height: float) -> dict:
    return {"width": width, "height": height, "left": x.start, "right": x.end, "top": y.end, "bottom": y.start}
