"""Memory: the CPU's, and an executor over another one, whose bytes no array of numpy ever shares."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from mpcompile.errors import ModelError
from mpcompile.ir.plan import Arg
from mpcompile.latency.waiting import NEVER
from mpcompile.runtime.aligned import ALIGNMENT
from mpcompile.runtime.arguments import Arguments
from mpcompile.runtime.driver import CpuDriver
from mpcompile.runtime.executor import Executor
from mpcompile.runtime.machine import Stopwatch
from mpcompile.runtime.memory import CpuMemory, Memory
from mpcompile.runtime.single_kernel import SingleKernel
from tests.runtime.small_bundle import BIAS, SHAPE, small_plan, small_weights


@dataclass
class FarBlock:
    data: bytearray

    @property
    def nbytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True, eq=False)
class FarView:
    block: FarBlock
    offset: int
    dtype: np.dtype
    shape: tuple

    @property
    def argument(self):
        """A handle, which only this memory's kernels understand."""
        return ("handle", self)


class FarMemory:
    """What a GPU's would be: to be reached by copies alone."""

    def __init__(self):
        self.synced = self.put_bytes = self.got_bytes = 0

    def alloc(self, nbytes):
        return FarBlock(bytearray(b"\xaa" * nbytes))

    def take(self, data):
        self.put_bytes += data.nbytes
        return FarBlock(bytearray(data.tobytes()))

    def view(self, block, offset, dtype, shape):
        return FarView(block, offset, np.dtype(dtype), tuple(shape))

    def put(self, view, values):
        data = np.broadcast_to(np.asarray(values), view.shape).astype(view.dtype).tobytes()
        view.block.data[view.offset : view.offset + len(data)] = data
        self.put_bytes += len(data)

    def get(self, view, out=None):
        size = int(np.prod(view.shape, dtype=np.int64)) * view.dtype.itemsize
        found = np.frombuffer(bytes(view.block.data[view.offset : view.offset + size]), view.dtype).reshape(view.shape)
        self.got_bytes += size
        if out is None:
            return found.copy()
        out[...] = found
        return out

    def sync(self):
        self.synced += 1


class FarDriver(CpuDriver):
    """Its clock counts the kernels that were started."""

    noun = "far device"

    def __init__(self):
        self.started = 0
        self.space = FarMemory()

    def stopwatch(self, memory):
        return Stopwatch(lambda: self.started, lambda start, end: float(end - start))

    def memory(self):
        return self.space

    def wait_clock(self, threads):
        return NEVER

    def load(self, library, memory):
        def function(name):
            def kernel(*handles):
                self.started += 1
                views = [view for word, view in handles if word == "handle"]
                inside = [np.frombuffer(v.block.data, v.dtype, int(np.prod(v.shape)), v.offset) for v in views]
                *inputs, out = [a.reshape(v.shape) for a, v in zip(inside, views)]
                out[...] = inputs[0] * 2 + inputs[1][:, None, None] if name == "scale" else inputs[0] ** 2

            return kernel

        return function


def far_executor():
    driver = FarDriver()
    memory: Memory = driver.memory()
    weights = memory.alloc(len(small_weights()))
    memory.put(memory.view(weights, 0, "uint8", (weights.nbytes,)), np.frombuffer(small_weights(), np.uint8))
    return driver, Executor(driver, memory, driver.load(b"", memory), small_plan(), weights, 1)


def test_an_executor_reaches_memory_by_put_and_get_alone():
    driver, executor = far_executor()
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    y = x * 2 + BIAS[:, None, None]
    before = driver.space.put_bytes
    np.testing.assert_array_equal(executor.run([x])[0], y**2)
    assert driver.space.put_bytes == before + x.nbytes and driver.space.got_bytes == x.nbytes
    several = np.stack([x, -x])
    expected = (several * 2 + BIAS[:, None, None]) ** 2
    np.testing.assert_array_equal(executor.run([several])[0], expected)
    trace = executor.run_traced([x])
    np.testing.assert_array_equal(trace["y"]["y:plain"], y)
    np.testing.assert_array_equal(trace["z"]["z:plain"], y**2)


def test_a_timer_asks_the_clocks_of_the_device():
    driver, executor = far_executor()
    timer = executor.timer([0, 1])
    assert timer.seconds(5) == 10.0 and driver.started == 10 and timer.waits is NEVER


def test_a_single_kernel_runs_in_that_memory_too():
    driver = FarDriver()
    plan = small_plan()
    single = SingleKernel(driver, b"", plan, np.frombuffer(small_weights(), np.uint8), 1)
    single.prepare()
    assert driver.space.synced == 1 and single.timer().seconds(3) == 3.0


def test_the_workspace_begins_as_zeros():
    for memory in (FarMemory(), CpuMemory()):
        arguments = Arguments(memory, small_plan(), memory.alloc(128))
        assert not memory.get(arguments.view(Arg("workspace", 0, "float32", SHAPE))).any()


def test_views_of_equal_arguments_are_one():
    arguments = Arguments(CpuMemory(), small_plan(), CpuMemory().alloc(128))
    arg = Arg("workspace", 0, "float32", SHAPE)
    assert arguments.view(arg) is arguments.view(Arg("workspace", 0, "float32", SHAPE))
    assert arguments.view(arg) is not arguments.view(Arg("workspace", 0, "int32", SHAPE))


def test_no_memory_for_a_plan_is_said():
    memory = CpuMemory()

    def none(nbytes):
        raise MemoryError

    with pytest.raises(ModelError, match="no memory for a workspace of 1024 bytes"):
        Arguments(SimpleNamespace(alloc=none, view=memory.view), small_plan(), memory.alloc(128))  # type: ignore[arg-type]


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 1 << 20])
def test_blocks_of_the_cpu_are_aligned(nbytes):
    block = CpuMemory().alloc(nbytes)
    assert block.ctypes.data % ALIGNMENT == 0 and block.nbytes == nbytes and block.dtype == np.uint8


def test_views_of_the_cpu_and_their_tensors_are_the_same_memory():
    memory = CpuMemory()
    block = memory.alloc(256)
    whole, part = memory.view(block, 0, "uint8", (256,)), memory.view(block, 64, "int32", (2, 3))
    memory.put(whole, 0)
    memory.put(part, np.arange(6).reshape(2, 3).astype(np.int32))
    np.testing.assert_array_equal(np.from_dlpack(part.argument), [[0, 1, 2], [3, 4, 5]])
    np.from_dlpack(part.argument)[0, 0] = 7  # as a kernel does
    found = memory.get(part)
    assert found[0, 0] == 7 and memory.get(whole)[64] == 7
    memory.put(part, -1)
    assert found[0, 0] == 7 and (memory.get(part) == -1).all() and memory.get(whole)[:64].sum() == 0
    out = np.zeros((2, 3), np.int32)
    assert memory.get(part, out) is out and (out == -1).all()
    memory.sync()
