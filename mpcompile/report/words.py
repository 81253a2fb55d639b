"""Numbers as text, and names as readers know them."""

from __future__ import annotations

import re

UNITS = {"pc": "%", "ms": "ms", "us": "µs", "s": "s", "MBitOps": "MBitOps", "GBitOps": "GBitOps"}


def label(point: dict) -> str:
    """target-30pc → search 30 %, target-w2a2 → search at W2A2, uniform-w2a2 → W2A2."""
    name, kind = point["name"], point["kind"]
    if kind in ("float", "int8"):
        return f"ONNX Runtime {'fp32' if kind == 'float' else 'int8'}"
    if kind == "uniform":
        return name.removeprefix("uniform-").upper()
    if found := re.fullmatch(r"target-(w[1-8]a[1-8])", name):
        return f"search at {found[1].upper()}"
    if found := re.fullmatch(r"target-(w[1-8]a[1-8])-([0-9.]+)pc", name):
        return f"search at {found[2]} % of {found[1].upper()}"
    found = re.fullmatch(r"target-([0-9.e+-]+?)(pc|ms|us|s|MBitOps|GBitOps)", name)
    return f"search {found[1]} {UNITS[found[2]]}" if found else f"search {name.replace('-', ' ')}"


def time(seconds: float | None, digits: int = 3) -> str:
    """With a fitting unit: 1.41 ms."""
    if seconds is None:
        return ""
    factor, unit = (1, "s") if abs(seconds) >= 1 else (1e3, "ms") if abs(seconds) * 1e3 >= 1 else (1e6, "µs")
    return f"{_digits(seconds * factor, digits)} {unit}"


def duration(seconds: float) -> str:
    """Of long things: 1 h 02 min, 3 min 20 s, 4.1 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(value: float | None, images: int) -> str:
    """An accuracy; as many digits as so many images tell."""
    return "" if value is None else f"{100 * value:.{accuracy_digits(images)}f} %"


def points(difference: float, images: int) -> str:
    """A difference of accuracies, without sign: 1.3 points."""
    text = f"{abs(100 * difference):.{accuracy_digits(images)}f}"
    return f"{text} point{'s' * (float(text) != 1)}"


def accuracy_digits(images: int) -> int:
    return 1 if images < 2000 else 2


def ratio(value: float | None) -> str:
    """2.31×"""
    return "" if value is None else f"{_digits(value, 3)}×"


def percent(value: float | None) -> str:
    """A relative error, with sign: +2.1 %."""
    return "" if value is None else f"{100 * value:+.1f} %"


def unbroken(text: str) -> str:
    """No line ends between a number and its unit."""
    return re.sub(r"(\d) (?=(?:%|ms|µs|s|KiB)(?![\w-]))", "\\1\u00a0", text)


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else _digits(value, digits)


def _digits(value: float, digits: int) -> str:
    """So many significant digits, never in powers of ten, and at least all before the point."""
    if value == 0:
        return "0"
    size = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if size:
        return f"{value:.{max(0, digits - size)}f}"
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.{digits + 3}f}"
