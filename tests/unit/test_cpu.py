"""What /proc/cpuinfo says on a Raspberry Pi, and on a machine that emulates one (tests/arm asks an emulated one)."""

import pytest

from mpcompile.targets import cpu, load_target

PI = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

processor\t: 1
"""
X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n"
X86 += "model\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    def set_up(arch: str, cpuinfo: str, model: str = ""):
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        if model:
            (tmp_path / "model").write_text(model + "\0")
        monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(cpu, "MODEL", tmp_path / "model")
        monkeypatch.setattr(cpu.platform, "machine", lambda: arch)
        monkeypatch.setattr(cpu.platform, "processor", lambda: "")
        cpu._fields.cache_clear()

    yield set_up
    cpu._fields.cache_clear()


@pytest.mark.parametrize("board, part", [("rpi3b", "0xd03"), ("rpi4b", "0xd08"), ("rpi5", "0xd0b")])
def test_a_raspberry_pi_is_recognised(machine, board, part):
    machine("aarch64", PI.format(part=part), "Raspberry Pi 4 Model B Rev 1.4")
    assert cpu.vendor() == ("0x41", 8, int(part, 16)) and load_target(board).is_made_for(*cpu.vendor())
    assert cpu.name() == "Raspberry Pi 4 Model B Rev 1.4"


def test_a_32_bit_system(machine):
    machine("armv7l", PI.format(part="0xd08").replace("architecture: 8", "architecture: 7"))
    assert load_target("rpi4b-32").is_made_for(*cpu.vendor()) and cpu.name() == "armv7l"


def test_an_emulator_shows_the_machine_that_it_runs_on(machine):
    machine("aarch64", X86)
    assert cpu.vendor() == ("", 0, 0) and cpu.name() == "aarch64"
    machine("x86_64", X86)
    assert cpu.vendor() == ("AuthenticAMD", 25, 17) and cpu.name() == "AMD EPYC" and cpu.features() == {"fpu", "avx2"}
