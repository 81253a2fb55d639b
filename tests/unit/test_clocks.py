"""What a board tells of its clock: a Raspberry Pi's files, and those of boards that have fewer."""

import pytest

from mpcompile.remote.clocks import clocks

PI = {"governor": "ondemand", "khz": "1500000", "throttled": "0", "millidegrees": "48312"}


@pytest.mark.parametrize("change, says, warns", [
    ({}, "governor ondemand, 1500 → 1500 MHz, 48 °C, not throttled", ["ondemand"]),
    ({"governor": "performance"}, "governor performance, 1500 → 1500 MHz, 48 °C, not throttled", []),
    ({"governor": "performance", "throttled": "50005", "khz": "600000"},
     "governor performance, 1500 → 600 MHz, 48 °C, throttled", ["the voltage is too low and it is throttled"]),
    ({"governor": "performance", "throttled": "80000"}, "governor performance, 1500 → 1500 MHz, 48 °C, not throttled",
     ["too warm"]),
    ({"governor": "", "throttled": ""}, "1500 → 1500 MHz, 48 °C", []),
    ({"governor": "", "throttled": "", "khz": "", "millidegrees": "?"}, "", []),
])
def test_clocks(change, says, warns):
    told, warnings = clocks(PI, PI | change)
    assert told == says and len(warnings) == len(warns) and all(w in found for w, found in zip(warns, warnings))
