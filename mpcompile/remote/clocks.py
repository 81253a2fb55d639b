"""What a board's own files say of its clock while it was measured: governor, frequency, temperature, throttling."""

from __future__ import annotations

THROTTLED = {0: "the voltage is too low", 1: "the clock is capped", 2: "it is throttled", 3: "it is too warm"}
"""Bits of a Raspberry Pi's get_throttled (its firmware's documentation, "get_throttled"): now; 16 higher: since it
was switched on."""


def clocks(before: dict[str, str], after: dict[str, str]) -> tuple[str, list[str]]:
    """A line of what was read, "" where the board tells nothing; and warnings: why its times may not be its best.

    Each is a reading: governor, khz, throttled (hexadecimal), millidegrees; "" what could not be read.
    """
    told, warnings = [], []
    if governor := after.get("governor"):
        told.append(f"governor {governor}")
        if governor != "performance":
            warnings.append(f"the clock is set by the governor {governor}: `sudo cpufreq-set -g performance`, or echo "
                            "performance to scaling_governor, keeps it at its highest")
    if khz := [_number(r.get("khz")) for r in (before, after)]:
        if all(khz):
            told.append(" → ".join(f"{k // 1000}" for k in khz) + " MHz")
    if (heat := _number(after.get("millidegrees"))) is not None:
        told.append(f"{heat / 1000:.0f} °C")
    if (bits := _number(after.get("throttled"), 16)) is not None:
        now = [words for bit, words in THROTTLED.items() if bits >> bit & 1]
        was = [words for bit, words in THROTTLED.items() if bits >> (bit + 16) & 1]
        told.append("not throttled" if not now else "throttled")
        if now:
            warnings.append(f"the board says that {' and '.join(now)}: its times are those of a lower clock")
        elif was:
            warnings.append("since it was switched on, the board was slowed down at times (" + ", ".join(was) + "): mind its "
                            "power supply and its cooling")
    return ", ".join(told), warnings


def _number(text: str | None, base: int = 10) -> int | None:
    try:
        return int(text, base)
    except (TypeError, ValueError):
        return None
