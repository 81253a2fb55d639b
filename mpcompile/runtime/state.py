"""What may change from one moment to the next on this machine, and makes times doubtful: clock, heat, voltage. As far as
Linux tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mpcompile.runtime.cuda.state import GpuState

RASPBERRY_BITS = {
    0: "the supply voltage is too low",
    1: "the clock is capped",
    2: "the CPU is throttled",
    3: "the soft temperature limit holds",
}
"""Bits of the firmware's get_throttled: what holds now; each 16 places up: that it has happened since the start."""
SINCE_START = 16
FIRMWARE = "soc*/*firmware"
"""The firmware's device in devices/platform: soc/soc:firmware on a Pi 3 and 4, soc@107c000000/soc@107c000000:firmware on
a Pi 5."""
LOW_VOLTAGE = "raspberrypi-hwmon*/hwmon/hwmon*/in0_lcrit_alarm"
"""Below it: what Linux itself has of the firmware's bits, 1 where the voltage was too low in the last two seconds;
get_throttled is Raspberry Pi's own addition, which other kernels lack."""
SYS = Path("/sys")


@dataclass(frozen=True)
class State:
    """`governor`: cpufreq's, "" where there is none. `clock`: MHz now, 0 unknown. `temperature`: °C of the hottest zone,
    None unknown. `throttled`: a Raspberry Pi's get_throttled, or what there is of it. `throttles`: how often
    x86 cores have been, so far. `gpu`: of the CUDA device, None where there is none."""

    governor: str
    clock: int
    temperature: float | None
    throttled: int
    throttles: int
    gpu: GpuState | None = None

    @staticmethod
    def here(sys: Path = SYS) -> State:
        """Of this machine, now."""
        cpus, frequency = sys / "devices/system/cpu", "cpu[0-9]*/cpufreq"
        governors = {_text(p) for p in cpus.glob(f"{frequency}/scaling_governor")} - {""}
        clocks = [_number(p) for p in cpus.glob(f"{frequency}/scaling_cur_freq")]
        zones = [_number(p) for p in (sys / "class/thermal").glob("thermal_zone*/temp")]
        devices = sys / "devices/platform"
        throttled = [_hex(_text(p)) for p in devices.glob(f"{FIRMWARE}/get_throttled")]
        alarms = [_number(p) for p in devices.glob(f"{FIRMWARE}/{LOW_VOLTAGE}")]
        counts = [_number(p) for p in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
        return State(
            ", ".join(sorted(governors)),
            max(clocks, default=0) // 1000,
            max(zones) / 1000 if zones else None,
            max(throttled, default=0) or max(alarms, default=0),
            sum(counts),
            GpuState.here(sys),
        )

    def complaints(self, before: State | None = None) -> list[str]:
        """What is wrong now, and with `before` what went wrong since then; each a few words."""
        happened = self.throttled >> SINCE_START & ~(before.throttled >> SINCE_START) if before else 0
        bits = self.throttled | (before.throttled if before else 0) | happened
        found = [words for bit, words in RASPBERRY_BITS.items() if bits >> bit & 1]
        if before and self.throttles > before.throttles:
            found.append(f"heat throttled the CPU {self.throttles - before.throttles} times")
        if self.gpu and before and before.gpu:
            found += self.gpu.complaints(before.gpu)
        return found

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(d: Mapping) -> State:
        told = {f.name: d[f.name] for f in fields(State) if f.name != "gpu"}
        return State(**told, gpu=GpuState(**d["gpu"]) if d["gpu"] else None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else 0


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
