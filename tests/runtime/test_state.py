"""What Linux tells of clock, heat and voltage, on a Raspberry Pi and on x86, from folders like theirs."""

import pytest

from mpcompile.runtime import device
from mpcompile.runtime.device import watched
from mpcompile.runtime.state import State


@pytest.fixture
def sys(tmp_path):
    def write(path: str, text: str):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
        return tmp_path

    return write


def pi(sys, throttled: str, clock: str = "1500000"):
    sys("class/thermal/thermal_zone0/temp", "61342")
    for cpu in range(4):
        sys(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "ondemand")
        sys(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", clock)
    return State.here(sys("devices/platform/soc/soc:firmware/get_throttled", throttled))


def test_a_raspberry_pi(sys):
    cool = pi(sys, "0")
    assert cool == State("ondemand", 1500, 61.342, 0, 0) and cool.complaints() == []
    assert State.from_json(cool.to_json()) == cool
    hot = pi(sys, "50005", "600000")  # too little voltage and throttled, now and before
    assert hot.clock == 600 and hot.complaints() == ["the supply voltage is too low", "the CPU is throttled"]
    over = pi(sys, "40000")  # throttled once, before
    assert over.complaints() == [] and over.complaints(over) == []
    assert over.complaints(cool) == ["the CPU is throttled"]


FIRMWARE = ("soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware")
"""Of a Pi 3 and 4 (bcm2837, bcm2711), of a Pi 5 (bcm2712)."""


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_the_firmware_of_every_pi_is_found(sys, firmware):
    assert State.here(sys(f"devices/platform/{firmware}/get_throttled", "e0006")).throttled == 0xE0006


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_a_kernel_that_knows_the_voltage_only(sys, firmware):
    alarm = f"devices/platform/{firmware}/raspberrypi-hwmon/hwmon/hwmon1/in0_lcrit_alarm"
    assert State.here(sys(alarm, "0")).complaints() == []
    assert State.here(sys(alarm, "1")).complaints() == ["the supply voltage is too low"]
    sys(f"devices/platform/{firmware}/get_throttled", "20002")  # which says more, where it is there
    assert State.here(sys(alarm, "1")).complaints() == ["the clock is capped"]


def test_x86_counts(sys, tmp_path):
    before = State.here(sys("devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3"))
    after = State.here(sys("devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "5"))
    assert after.complaints(before) == ["heat throttled the CPU 2 times"] and after.complaints() == []


def test_a_machine_that_tells_nothing(tmp_path):
    assert State.here(tmp_path) == State("", 0, None, 0, 0)


def test_a_measurement_bears_the_warning(sys, monkeypatch):
    from mpcompile.latency.measure import Measurement, local, measure

    states = iter([pi(sys, "0"), pi(sys, "40000")])
    monkeypatch.setattr(device.State, "here", lambda: next(states))
    found = watched(lambda: measure({"x": local(lambda: None)}, rounds=1, min_time=1e-6))
    assert found.warnings == ("the CPU is throttled",) and found.note().endswith("; the CPU is throttled")
    assert Measurement.from_json(found.to_json()) == found
