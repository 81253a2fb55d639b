"""What may change from one moment to the next on a CUDA device, and makes times doubtful: by NVML, or a Jetson's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpcompile.runtime.cuda.devices import device_or_none
from mpcompile.runtime.cuda.nvml import nvml

CLOCK = "class/devfreq/*{}*/cur_freq"
CHIPS = ("gpu", "ga10b", "gv11b", "gp10b", "gm20b")
"""What a Jetson's kernel calls its GPU's clock: 17000000.gpu, 17000000.ga10b (Orin), 17000000.gv11b (Xavier),
57000000.gpu (Nano)."""
OVER_CURRENT = "class/hwmon/hwmon*/oc*_event_cnt"
"""How often each of a Jetson's supplies gave too little, and its clocks were cut (Jetson Linux Developer Guide)."""


@dataclass(frozen=True)
class GpuState:
    """`clock`: of the multiprocessors, MHz now, 0 unknown. `temperature`: °C, None unknown. `heat`, `power`: seconds, so
    far, in which heat or the limit of power lowered the clock; `over_current`: how often a supply's did."""

    clock: int
    temperature: float | None
    heat: float
    power: float
    over_current: int

    @staticmethod
    def here(sys: Path) -> GpuState | None:
        """Of this machine's CUDA device, now; `sys` is /sys. None where there is none."""
        found, told = device_or_none(), nvml()
        if found is None:
            return None
        events = sum(_number(path) for path in sys.glob(OVER_CURRENT))
        handle = told.device(found.bus) if told and not found.integrated else None
        if told and handle:
            heat, power = told.slowed_by_heat(handle), told.slowed_by_power(handle)
            return GpuState(told.clock(handle), told.temperature(handle), heat, power, events)
        clocks = [_number(path) for chip in CHIPS for path in sys.glob(CLOCK.format(chip))]
        return GpuState(max(clocks, default=0) // 1_000_000, None, 0.0, 0.0, events)

    def complaints(self, before: GpuState) -> list[str]:
        """What went wrong since then; each a few words."""
        found = [
            f"{what} lowered the GPU's clock for {now - then:.2g} s"
            for what, now, then in (("heat", self.heat, before.heat), ("its power limit", self.power, before.power))
            if now > then
        ]
        if self.over_current > before.over_current:
            found.append(f"a supply of the GPU gave too little {self.over_current - before.over_current} times")
        return found


def _number(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0
