"""Where kernels' scratch memory lies: on the stack while there is room, else asked for, and counted."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tvm

from mpcompile.compiler import library, scratch
from mpcompile.compiler.backend import tvm_dict
from mpcompile.ir import grid as grids
from mpcompile.kernels.layer import lower
from mpcompile.schedules import architecture_of
from mpcompile.targets import load_target
from tests.kernels.harness import stored
from tests.kernels.test_contract import convolution

PADS = (1, 1, 1, 1)
ASKS = "__TVMBackendAllocWorkspace"


@pytest.fixture(scope="module")
def kernel():
    """A layer with tiles of more than 1 KiB, and its target."""
    target = load_target("x86-64-v3")
    layer, types, _ = convolution(
        np.random.default_rng(0),
        64,
        14,
        14,
        64,
        (3, 3),
        (1, 1),
        PADS,
        grids.bipolar(),
        grids.unsigned(2),
        grids.unsigned(2),
    )
    x, y = types["x"], types["y"]
    forms = (
        {"x": stored("x", x.shape, x.grid, ("planes+sums",), PADS)},
        {"y": stored("y", y.shape, y.grid, ("planes",))},
    )
    return lower(layer, *forms, {(0, 0): "popcount"}, architecture_of(target)).func, target


def measured(kernel) -> tuple[scratch.MeasureScratch, str]:
    """What a C export would provide, and the kernel's assembly."""
    func, target = kernel
    found = scratch.MeasureScratch()
    with tempfile.TemporaryDirectory() as folder:
        library.build_objects({"main": func}, tvm_dict(target), Path(folder), [found])
    return found, library.compiled({"main": func}, tvm_dict(target)).mod.inspect_source("asm")


def test_a_tile_lies_on_the_stack(kernel):
    found, assembly = measured(kernel)
    assert ASKS not in assembly and found.bytes == 0 and 1024 < found.stack <= scratch.STACK


def test_what_has_no_room_there_is_asked_for(kernel, monkeypatch):
    monkeypatch.setattr(scratch, "STACK", 512)
    found, assembly = measured(kernel)
    assert ASKS in assembly and found.bytes > 1024 and found.stack <= 512


def test_what_threads_find_at_the_same_time_is_not_lost(kernel, monkeypatch):
    """The larger of two functions is looked at while the smaller one still is."""
    func, _target = kernel
    found, sizes = scratch.MeasureScratch(), iter((64, 4096))

    def asked_for(body):
        size = next(sizes)
        if size == 64:
            found.run_before_pass(mod, step)
        return size

    mod, step = tvm.IRModule({"main": func}), SimpleNamespace(name="tirx.LowerTVMBuiltin")
    monkeypatch.setattr(scratch, "_asked_for", asked_for)
    found.run_before_pass(mod, step)
    assert found.bytes == 4096
