"""What this machine says of its CUDA device: doctor, devices, its state."""

import json
from dataclasses import replace

import pytest

from mpcompile.runtime.cuda.state import GpuState
from mpcompile.runtime.device import About
from mpcompile.runtime.state import State
from tests.cuda import standin as standins
from tests.cuda.standin import HERE


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The driver and NVML."""
    folder = tmp_path_factory.mktemp("both")
    standins.build(folder, HERE / "nvml" / "nvml.cpp", name="libnvidia-ml.so.1")
    return standins.build(folder)


def cuda_of(standin, **environment) -> dict:
    code = "import json; from mpcompile.cli.doctor import _cuda; print(json.dumps(_cuda().to_json()))"
    return json.loads(standins.run(code, standin=standin, **environment).stdout)


def test_doctor_lists_devices(tmp_path, standin):
    found = cuda_of(standin, STANDIN_DEVICES="2", STANDIN_ARCH="87")
    device = "(sm_87, 1.0 GiB, 8 SMs)"
    assert found["ok"] and found["found"] == (
        f"driver of CUDA 12.4: Stand-in 0 {device}, Stand-in 1 {device}; bundles run on the first"
    )
    for driver, environment, said in (
        (standin, {"STANDIN_DEVICES": "0"}, "the CUDA driver of this machine finds no device"),
        (standin, {"STANDIN_FAIL": "cuInit:803"}, "the CUDA driver refuses: cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        (standins.none(tmp_path), {}, "libcuda.so.1: file too short)"),
    ):
        found = cuda_of(driver, **environment)
        assert found["ok"] is None and said in found["found"] and found["mend"]


def test_a_device_tells_of_it(standin):
    code = """
import json
from mpcompile.runtime.device import About
print(json.dumps(About.here().to_json()))
"""
    told = json.loads(standins.run(code, standin=standin).stdout)
    about = About.from_json(told)
    assert (about.cuda, about.cuda_arch, about.cuda_memory) == ("Stand-in 0", "sm_80", 1 << 30)
    machine = about.machines("far")["cuda"]
    assert (machine.name, machine.kind, machine.arch, machine.model) == ("far", "cuda", "sm_80", "Stand-in 0")
    assert about.hardware.endswith(", Stand-in 0 (sm_80)") and about.model("cuda") == "Stand-in 0"
    none = About.from_json(told | {"cuda": "", "cuda_arch": "", "cuda_memory": 0})
    assert list(none.machines("far")) == ["cpu"] and none.hardware == f"{about.arch}, {about.cpu}"


STATES = """
import json, sys
from pathlib import Path
from mpcompile.runtime.state import State
before = State.here(Path(sys.argv[1]))
after = State.here(Path(sys.argv[1]))
print(json.dumps([after.to_json(), after.complaints(before)]))
"""


def test_nvml_tells_of_clock_and_heat(both, tmp_path):
    state, complaints = json.loads(standins.run(STATES, tmp_path, standin=both).stdout)
    assert state["gpu"] == {"clock": 1410, "temperature": 61.0, "heat": 0.5, "power": 1.0, "over_current": 0}
    assert complaints == ["heat lowered the GPU's clock for 0.25 s"]
    assert State.from_json(state).to_json() == state


def test_another_device_is_not_taken_for_it(both, tmp_path):
    """NVML counts what CUDA_VISIBLE_DEVICES hides: it is asked by PCI address."""
    found, _ = json.loads(standins.run(STATES, tmp_path, standin=both, STANDIN_ARCH="87").stdout)
    assert found["gpu"]["temperature"] is None


def test_a_jetson_tells_by_files(standin, tmp_path):
    for path, text in (
        ("class/devfreq/17000000.gpu/cur_freq", "918000000\n"),
        ("class/devfreq/other/cur_freq", "2000000000"),
        ("class/hwmon/hwmon3/oc1_event_cnt", "3\n"),
        ("class/hwmon/hwmon3/oc3_event_cnt", "4\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    state, complaints = json.loads(standins.run(STATES, tmp_path, standin=standin, STANDIN_ARCH="87").stdout)
    assert state["gpu"] == {"clock": 918, "temperature": None, "heat": 0.0, "power": 0.0, "over_current": 7}
    assert complaints == []


def test_what_happened_meanwhile_is_a_complaint():
    before = GpuState(1000, 60.0, 1.0, 2.0, 3)
    assert before.complaints(before) == []
    after = replace(before, heat=1.25, power=2.5, over_current=5)
    assert after.complaints(before) == [
        "heat lowered the GPU's clock for 0.25 s",
        "its power limit lowered the GPU's clock for 0.5 s",
        "a supply of the GPU gave too little 2 times",
    ]
    assert State("", 0, None, 0, 0, after).complaints(State("", 0, None, 0, 0)) == []
