"""Kinds of devices: a board of one's own of kind "cpu", and a second kind that is nothing but records."""

from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.export_c import export_c
from mpcompile.api.verify import verify
from mpcompile.compiler.backend import BACKENDS, CpuBackend, tvm_dict
from mpcompile.errors import TargetError
from mpcompile.kernels.primitives import PRIMITIVES, LlvmPrimitives, fma
from mpcompile.runtime.archive import read_manifest
from mpcompile.runtime.bundle import open_bundle
from mpcompile.runtime.driver import DRIVERS, CpuDriver
from mpcompile.runtime.machine import Machine, Stopwatch
from mpcompile.schedules import SCHEDULES, architecture_of
from mpcompile.targets import cpu, list_targets, load_target, native_target
from mpcompile.targets.kind import CPU, KINDS, Kind, StorageCosts

MODEL = Path(__file__).parents[1] / "data" / "brevitas_cnn_w2a2.onnx"


def board_toml(path: Path, **more) -> Path:
    """A board like this machine, as a user would write it."""
    here = native_target()
    keys = {
        "description": "mine",
        "arch": here.arch,
        "mcpu": here.mcpu,
        "mattr": list(here.mattr),
        "mtriple": here.mtriple,
        "features": list(here.features),
        "vector_bits": here.vector_bits,
        "popcount_bitmacs_per_cycle": here.popcount_bitmacs_per_cycle,
        "dot_macs_per_cycle": here.dot_macs_per_cycle,
        "source": "a test",
        **more,
    }
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in keys.items()).replace("'", '"'))
    return path


def test_a_board_of_ones_own_is_compiled_for_run_and_exact(tmp_path):
    board = board_toml(tmp_path / "mine.toml", kind="cpu", cores=1)
    bundle = compile_model(MODEL, board, tmp_path / "m.mpc")
    target = read_manifest(bundle)["variants"][0]["target"]
    assert (target["name"], target["kind"], target["cores"]) == ("mine", "cpu", 1)
    report = verify(MODEL, bundle, threads=1)
    assert report.equal and report.rows


def test_features_that_its_cpu_lacks_are_refused(tmp_path):
    """LLVM would end the process."""
    cpu = {"arch": "x86_64", "mcpu": "x86-64-v4", "mtriple": "", "vector_bits": 512, "mattr": ["+avx512vnni"]}
    features = [*load_target("x86-64-v4").features, "avx512_vnni", "avx512_vpopcntdq"]
    board = board_toml(tmp_path / "mine.toml", **cpu, features=features)
    with pytest.raises(TargetError) as error:
        compile_model(MODEL, board, tmp_path / "m.mpc")
    assert str(error.value) == (
        "board mine has avx512_vpopcntdq, and x86-64-v4 as LLVM knows it has not: "
        'mattr = ["+avx512vpopcntdq"] would be accepted'
    )
    assert not (tmp_path / "m.mpc").exists()


@pytest.mark.parametrize("name", list_targets())
def test_boards_that_ship_have_what_their_features_say(name, tmp_path):
    assert all(path.stat().st_size for path in CpuBackend().build_objects({}, load_target(name), tmp_path))


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(TargetError, match="mine.toml: kind: 'tpu' is not one of cpu") as error:
        compile_model(MODEL, board_toml(tmp_path / "mine.toml", kind="tpu"), tmp_path / "m.mpc")
    assert "\n" not in str(error.value)


class TwinBackend(CpuBackend):
    exports_c = False

    def __init__(self):
        self.asked = []

    def tvm_dict(self, target, threads):
        self.asked.append("tvm_dict")
        return super().tvm_dict(target, threads) | {"num-cores": 3}

    def build_objects(self, functions, target, folder, instruments=()):
        self.asked.append("build_objects")
        return super().build_objects(functions, target, folder, instruments)

    def link_objects(self, objects, target):
        self.asked.append("link_objects")
        return b"twin" + super().link_objects(objects, target)


class TwinPrimitives(LlvmPrimitives):
    def __init__(self):
        self.asked = set()

    def fma(self, x, a, b):
        self.asked.add("fma")
        return super().fma(x, a, b)

    def popcount(self, word):
        self.asked.add("popcount")
        return super().popcount(word)


class TwinDriver(CpuDriver):
    noun = "twin"

    def __init__(self):
        self.asked = []

    def stopwatch(self, memory):
        return Stopwatch(lambda: 0.0, lambda start, end: 0.25)

    def here(self):
        return Machine("this machine", "twin", cpu.arch(), "Twin 1", cpu.features())

    def missing(self, features, machine):
        self.asked.append("missing")
        return super().missing(features, machine)

    def load(self, library, memory):
        self.asked.append("load")
        assert library.startswith(b"twin")
        return super().load(library[4:], memory)


@pytest.fixture
def twin():
    """A second kind: this CPU again, by records of its own. (backend, primitives, driver)."""

    def schedules(target):
        base = architecture_of(load_target("native"))
        like = type("Twin", (type(base),), {"kind": "twin"})
        return like(**{f.name: getattr(base, f.name) for f in fields(base)})

    planes_cost_nothing = StorageCosts({**CPU.storage.write, "planes": 0.0}, CPU.storage.read)
    records = TwinBackend(), TwinPrimitives(), TwinDriver()
    registries = (BACKENDS, PRIMITIVES, DRIVERS, SCHEDULES, KINDS)
    with ExitStack() as stack:
        for registry, record in zip(registries, (*records, schedules, Kind("twin", planes_cost_nothing))):
            registry.add("twin", record)
            stack.callback(registry.remove, "twin")
        yield records


def test_a_second_kind_is_records_alone(tmp_path, twin):
    backend, primitives, driver = twin
    board = load_target(board_toml(tmp_path / "mine.toml", kind="twin"))
    assert tvm_dict(board)["num-cores"] == 3 and board.storage.write["planes"] == 0.0
    bundle = compile_model(MODEL, board, tmp_path / "m.mpc", families={"*": "popcount"})
    assert {"build_objects", "link_objects"} <= set(backend.asked) and primitives.asked == {"fma", "popcount"}
    assert read_manifest(bundle)["variants"][0]["target"]["kind"] == "twin"
    reference = compile_model(MODEL, board_toml(tmp_path / "cpu.toml"), tmp_path / "cpu.mpc")
    with open_bundle(bundle, 1) as here, open_bundle(reference, 1) as other:
        assert here.variant.kind == "twin" and driver.asked == ["missing", "load"]
        x = np.random.default_rng(0).standard_normal(here.inputs[0].shape, np.float32)
        np.testing.assert_array_equal(here.run(x), other.run(x))
        assert here.timer().seconds(4) == 0.25
    assert verify(MODEL, bundle, threads=1).equal


def test_features_are_checked_by_the_kinds_own_record(tmp_path, twin):
    features = [*native_target().features, "antigravity"]
    board = board_toml(tmp_path / "mine.toml", kind="twin", features=features)
    bundle = compile_model(MODEL, board, tmp_path / "m.mpc")
    with pytest.raises(TargetError, match=r"it needs antigravity, which this twin \(Twin 1\) lacks"):
        open_bundle(bundle, 1)
    assert twin[2].asked and "load" not in twin[2].asked


def test_a_kind_without_c_says_so(tmp_path, twin):
    with pytest.raises(TargetError, match="target mine: there is no C library for a twin"):
        export_c(MODEL, board_toml(tmp_path / "mine.toml", kind="twin"), tmp_path / "c")


def test_a_kind_of_which_a_room_knows_nothing(tmp_path):
    KINDS.add("half", Kind("half", CPU.storage))
    try:
        board = load_target(board_toml(tmp_path / "mine.toml", kind="half"))
        with pytest.raises(TargetError, match="there is no .* for devices of kind half: there is cpu"):
            compile_model(MODEL, board, tmp_path / "m.mpc")
    finally:
        KINDS.remove("half")


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="there is a kind of device cpu already"):
        KINDS.add("cpu", CPU)


def test_primitives_are_asked_for_inside_a_kinds_scope():
    with pytest.raises(LookupError):
        fma(1.0, 2.0, 3.0)
