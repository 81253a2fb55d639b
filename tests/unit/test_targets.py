"""Boards: the shipped ones, one's own, and what is said of bad ones."""

import dataclasses

import pytest

from mpcompile.compiler.backend import tvm_dict
from mpcompile.errors import TargetError
from mpcompile.kernels.select import expected_family, expected_gain, expected_rates
from mpcompile.targets import Target, cpu, list_fleets, list_targets, load_fleet, load_target, native_target
from mpcompile.targets import native as native_module
from mpcompile.targets.target import WIDEN_DOT

GOOD = """
description = "mine"
arch = "x86_64"
mcpu = "x86-64-v3"
features = ["avx2", "fma"]
vector_bits = 256
popcount_bitmacs_per_cycle = 96
dot_macs_per_cycle = 32.5
source = "me"
"""


@pytest.fixture
def board(tmp_path):
    def write(text):
        path = tmp_path / "board.toml"
        path.write_text(text)
        return path

    return write


def test_every_shipped_board_loads():
    names = list_targets()
    assert names[0] == "native" and {"x86-64-v2", "x86-64-v3", "x86-64-v4", "zen4", "zen5"} <= set(names)
    for name in names[1:]:
        target = load_target(name)
        assert target.name == name and target.source
        if target.kind == "cpu":
            assert target.features and tvm_dict(target, 3)["num-cores"] == 3
        else:
            assert tvm_dict(target, 3) == {"kind": "cuda", "arch": target.arch} and not target.features


@pytest.mark.parametrize(
    "lower, higher",
    [
        ("x86-64-v2", "x86-64-v3"),
        ("x86-64-v3", "x86-64-v4"),
        ("x86-64-v4", "x86-64-v4-vnni-vpopcntdq"),
        ("x86-64-v4-vnni-vpopcntdq", "zen4"),
    ],
)
def test_levels_contain_each_other(lower, higher):
    low, high = load_target(lower), load_target(higher)
    assert set(low.features) < set(high.features)
    # Wider registers are no faster by themselves: AVX-512 without VPOPCNTDQ and VNNI has fewer ports.
    counts, products, few = (0.75, 0.89, 0.9) if higher == "x86-64-v4" else (1, 1, 1)
    assert low.popcount_bitmacs_per_cycle * counts <= high.popcount_bitmacs_per_cycle
    assert low.dot_rate(0) * products <= high.dot_rate(0) and low.dot_rate(99) * few <= high.dot_rate(99)


def test_what_a_target_has():
    v3, v4, zen5 = load_target("x86-64-v3"), load_target("x86-64-v4"), load_target("zen5")
    assert v3.has_fma and not v3.has_vnni and not load_target("x86-64-v2").has_fma
    assert not v4.has_vnni and v4.vector_bits == 512 and zen5.has_vnni
    assert [expected_family(zen5, *bits) for bits in ((1, 1), (2, 2), (3, 2), (8, 8))] == [
        "popcount",
        "popcount",
        "dot",
        "dot",
    ]


def test_rates_of_dot_depend_on_what_16_bits_hold():
    v3, zen5 = load_target("x86-64-v3"), load_target("zen5")
    assert v3.dot_rate(0) == v3.dot_macs_per_cycle and v3.dot_rate(1) < v3.dot_rate(8) < v3.dot16_macs_per_cycle
    assert zen5.dot_rate(0) == zen5.dot_rate(1) == zen5.dot_rate(99) == zen5.dot_macs_per_cycle
    a53 = load_target("rpi3b")  # products of at most 127, 63, …, 15 are added in 8 bits
    assert a53.dot_rate(128) == a53.dot16_macs_per_cycle / (1 + WIDEN_DOT / 128) < a53.dot_rate(129) < a53.dot_rate(520)
    assert expected_family(a53, 4, 4) == "dot" and expected_gain(a53, 4, 2) > 2.3 > expected_gain(a53, 4, 4) > 1.4
    assert expected_family(v3, 8, 8) == "dot" and expected_gain(v3, 8, 8) == 1.0 and expected_gain(v3, 4, 4) > 1.9
    assert expected_family(v3, 1, 1) == "lookup" and expected_gain(v3, 1, 1) > 7


def test_rates_of_lookup_depend_on_digits_and_on_what_8_bits_hold():
    rate = lambda board, w, a: expected_rates(load_target(board), w, a)["lookup"]
    v3, rpi4b, rpi5 = (load_target(board).lookup_macs_per_cycle for board in ("x86-64-v3", "rpi4b", "rpi5"))
    assert [rate("rpi5", 1, a) for a in (1, 4, 6, 7, 8)] == [rpi5, rpi5, rpi5, rpi5 / 2, rpi5 / 2]
    assert rate("rpi4b", 2, 4) == rpi4b / 2 / (1 + load_target("rpi4b").lookup_widen / 4)
    assert rate("x86-64-v3", 1, 6) == v3 / 2 / (1 + 3 / 9) and rate("x86-64-v3", 1, 5) == v3 / (1 + 3 / 2)
    assert [expected_family(load_target(b), 1, a) for b in ("rpi4b", "rpi5") for a in (1, 2, 4)] == [
        "popcount",
        "popcount",
        "lookup",
        "popcount",
        "lookup",
        "lookup",
    ]
    assert expected_family(load_target("rpi5"), 2, 2) == "dot"
    assert expected_family(load_target("rpi4b-32"), 1, 4) != "lookup"


def test_llvm_agrees_with_the_features_of_each_board():
    """What LLVM may emit for mcpu and mattr, of the extensions that plain loops can turn into, is all in `features`."""
    import tvm
    from tvm.target import codegen

    spelled = {
        "sse3": "pni",
        "sse4.1": "sse4_1",
        "sse4.2": "sse4_2",
        "bmi": "bmi1",
        "lzcnt": "abm",
        "avx512vnni": "avx512_vnni",
        "avx512vpopcntdq": "avx512_vpopcntdq",
        "avx512bitalg": "avx512_bitalg",
        "avx512vbmi2": "avx512_vbmi2",
        "avxvnni": "avx_vnni",
    }
    plain = {
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "sse4a",
        "popcnt",
        "avx",
        "avx2",
        "fma",
        "fma4",
        "xop",
        "f16c",
        "bmi",
        "bmi2",
        "lzcnt",
        "movbe",
        "avx512f",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512vpopcntdq",
        "avx512bitalg",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512ifma",
        "avxvnni",
        "gfni",
    }
    for name in list_targets()[1:]:
        target = load_target(name)
        used = {str(f) for f in codegen.llvm_get_cpu_features(tvm.target.Target(tvm_dict(target)))} & plain
        assert {spelled.get(f, f) for f in used} <= set(target.features), name
        assert target.vector_bits < 512 or "prefer-256-bit" not in {
            str(f) for f in codegen.llvm_get_cpu_features(tvm.target.Target(tvm_dict(target)))
        }, name


def test_native_is_this_machine():
    target = load_target("native")
    assert target == native_target() and target.name == "native"
    assert set(target.features) <= cpu.features() and target.arch == cpu.arch() and target.cores == cpu.cores()


def machine(monkeypatch, features, vendor):
    monkeypatch.setattr(native_module.cpu, "features", lambda: frozenset(features))
    monkeypatch.setattr(native_module.cpu, "vendor", lambda: vendor)
    monkeypatch.setattr(native_module.cpu, "name", lambda: "Some CPU")
    return native_target()


@pytest.mark.parametrize(
    "board, vendor, mcpu",
    [
        ("zen5", ("AuthenticAMD", 26, 2), "znver5"),
        ("zen4", ("AuthenticAMD", 25, 17), "znver4"),
        ("zen4", ("AuthenticAMD", 25, 1), "x86-64-v4"),  # a Zen 3 number with Zen 4 flags: not recognised
        ("zen5", ("SomebodyElse", 1, 1), "x86-64-v4"),
        ("icelake-server", ("GenuineIntel", 6, 106), "icelake-server"),
        ("x86-64-v4", ("GenuineIntel", 6, 106), "x86-64-v4"),  # an Ice Lake whose virtual machine hides VNNI
        ("x86-64-v3", ("AuthenticAMD", 23, 1), "x86-64-v3"),
        ("x86-64-v2", ("GenuineIntel", 6, 42), "x86-64-v2"),
    ],
)
def test_native_chooses(monkeypatch, board, vendor, mcpu):
    target = machine(monkeypatch, load_target(board).features, vendor)
    assert target.mcpu == mcpu and target.has_vnni == load_target(board).has_vnni


def test_native_on_a_cpu_that_has_too_little(monkeypatch):
    with pytest.raises(TargetError, match=r"this CPU \(Some CPU\) lacks .*sse4_2.*which x86-64-v2 needs"):
        machine(monkeypatch, {"sse2"}, ("", 0, 0))


def test_ones_own_board(board):
    target = load_target(board(GOOD))
    assert target.name == "board" and target.popcount_bitmacs_per_cycle == 96.0 and target.cores == 1
    assert isinstance(target, Target) and tvm_dict(dataclasses.replace(target, cores=4))["num-cores"] == 4


@pytest.mark.parametrize(
    "change, told",
    [
        ("speed = 3", "speed: unknown key"),
        ('cores = "two"', "cores: must be a whole number, not 'two'"),
        ("cores = 0", "cores: must be positive"),
        ("cores = true", "cores: must be a whole number"),
        ("cores = 1.5", "cores: must be a whole number, not 1.5"),
        ("lookup_macs_per_cycle = nan", "lookup_macs_per_cycle: must be positive, not nan"),
        ("lookup_macs_per_cycle = inf", "lookup_macs_per_cycle: must be positive, not inf"),
        ("lookup_macs_per_cycle = 0", "lookup_macs_per_cycle: must be positive, not 0"),
        ("lookup_macs_per_cycle = []", r"lookup_macs_per_cycle: must be a number, not \[\]"),
        ("lookup_widen = -1", "lookup_widen: must be positive, not -1"),
        ("mtriple = 3", "mtriple: must be a string, not 3"),
        ('kind = "tpu"', "kind: 'tpu' is not one of cpu"),
        ("kind = {}", "kind: must be a string"),
        ("l1d_kib = 32", "l1d_kib: unknown key"),
        ('mattr = ["avx2"]', "mattr: 'avx2' must begin with"),
        ("mattr = [2]", "mattr: must be a list of names"),
        ('cpus = ["AMD"]', "cpus: must be a list of"),
    ],
)
def test_bad_keys_are_named(board, change, told):
    with pytest.raises(TargetError, match=told) as error:
        load_target(board(GOOD + change))
    assert "board.toml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["arch", "mcpu", "features", "vector_bits", "source", "dot_macs_per_cycle"])
def test_missing_keys_are_named(board, key):
    with pytest.raises(TargetError, match=f"board.toml: {key}: is missing"):
        load_target(board("\n".join(line for line in GOOD.splitlines() if not line.startswith(key))))


def test_odd_widths_and_files(board, tmp_path):
    with pytest.raises(TargetError, match="vector_bits: must be 64, 128, 256 or 512, not 100"):
        load_target(board(GOOD.replace("256", "100")))
    with pytest.raises(TargetError, match="board.toml is no TOML"):
        load_target(board("a = = 3"))
    with pytest.raises(TargetError, match="cannot read target .*none.toml"):
        load_target(tmp_path / "none.toml")
    for name in ("raspberry", "../zen4", ""):
        with pytest.raises(TargetError, match="there is no target"):
            load_target(name)


def test_every_shipped_fleet_loads():
    assert "x86-64" in list_fleets() and not set(list_fleets()) & set(list_targets())
    for name in list_fleets():
        fleet = load_fleet(name)
        assert fleet.name == name and len(fleet.boards) > 1 and fleet.description
        assert fleet.boards == tuple(load_target(b.name) for b in fleet.boards)


def test_ones_own_fleet(board, tmp_path):
    mine = board(GOOD)
    path = tmp_path / "fleet.toml"
    path.write_text('description = "ours"\nboards = ["zen4", "board.toml"]\n')
    fleet = load_fleet(path)
    assert [b.name for b in fleet.boards] == ["zen4", "board"] and fleet.boards[1] == load_target(mine)
    with pytest.raises(TargetError, match="fleet.toml stands for several boards, here it must be one: use zen4, board"):
        load_target(path)
    with pytest.raises(TargetError, match="there is no target none: use native, "):
        load_fleet("none")


@pytest.mark.parametrize(
    "text, told",
    [
        ('boards = ["zen4"]', "description: is missing"),
        ('description = 3\nboards = ["zen4"]', "description: must be a string"),
        ('description = "x"\nboards = []', "boards: must be a list of names"),
        ('description = "x"\nboards = ["native"]', "boards: must be a list of names"),
        ('description = "x"\nboards = ["zen4"]\ncores = 2', "cores: unknown key; a fleet has description, boards"),
        ('description = "x"\nboards = ["zen4", "zen4"]', "boards: zen4 is named twice"),
        ('description = "x"\nboards = ["x86-64-v3", "zen4"]', "boards: no CPU would ever run zen4"),
    ],
)
def test_bad_fleets_are_named(board, text, told):
    with pytest.raises(TargetError, match=told) as error:
        load_fleet(board(text))
    assert "board.toml" in str(error.value) and "\n" not in str(error.value)
