"""The stand-in bites: what a device would refuse, or destroy silently, is an error there."""

import pytest

from tests.cuda import standin as standins

HEAD = """
import ctypes, sys
import numpy as np
from mpcompile.errors import DeviceLost, TargetError
from mpcompile.runtime.cuda.context import context
from mpcompile.runtime.cuda.driver_api import driver_api
from mpcompile.runtime.cuda.graph import Graph
from mpcompile.runtime.cuda.memory import CudaMemory

memory = CudaMemory(context())
api, stream = memory.context.enter(), memory.stream
view = memory.view(memory.alloc(256), 0, "uint8", (256,))
data = np.arange(256).astype(np.uint8)

def refused(kind, work):
    try:
        work()
    except kind as error:
        print(error)
    else:
        sys.exit("nothing was refused")
"""


def said(code, standin, **environment) -> str:
    """On both channels, of a process that ends well."""
    found = standins.run(HEAD + code, standin=standin, **environment)
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


def test_fresh_memory_holds_nothing_of_use(standin):
    assert said("assert (memory.get(view) == 0xA5).all()", standin) == ""


def test_what_nobody_waited_for_has_not_happened(standin):
    code = """
out = np.zeros(256, np.uint8)
memory.put(view, data)
api.cuMemcpyDtoHAsync(out.ctypes.data, view.argument, 256, stream)
assert not out.any()
api.cuStreamSynchronize(stream)
assert (out == data).all()
memory.put(view, data)
data[:] = 7  # too early: it was not copied yet
assert (memory.get(view) == 7).all()
"""
    assert said(code, standin) == ""


@pytest.mark.parametrize(
    "work, why",
    [
        ("api.cuMemcpyHtoDAsync(view.argument + 1, data.ctypes.data, 256, stream)", "to outside of any block"),
        ("api.cuMemcpyDtoHAsync(data.ctypes.data, view.argument - 1, 1, stream)", "from outside of any block"),
        ("api.cuMemsetD8Async(data.ctypes.data, 0, 1, stream)", "set outside of any block"),
        ("api.cuMemFree(view.argument + 64)", "is no block"),
        ("api.cuEventRecord(stream, stream)", "CUDA_ERROR_INVALID_HANDLE"),
        ("api.cuModuleLoadData(ctypes.byref(ctypes.c_void_p()), bytes(64))", "no library of this CPU"),
        ("Graph(memory, memory.sync)", "waits for a stream that is captured"),
    ],
)
def test_what_is_wrong_is_refused(standin, work, why):
    assert why in said(f"refused(TargetError, lambda: {work})", standin)


def test_a_capture_that_failed_is_over(standin):
    code = """
def fails():
    memory.put(view, data)
    raise KeyError("mine")
refused(KeyError, lambda: Graph(memory, fails))
memory.put(view, data)
assert (memory.get(view) == data).all()
graph = Graph(memory, lambda: memory.put(view, 0))
assert (memory.get(view) == data).all()  # it was recorded, not done
graph.launch()
assert not memory.get(view).any()
"""
    assert said(code, standin) == "'mine'\n"


def test_a_thread_begins_without_a_context(standin):
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    refused(TargetError, pool.submit(api.cuStreamSynchronize, stream).result)
    pool.submit(memory.sync).result()
"""
    assert "this thread has no context" in said(code, standin)


def test_memory_ends(standin):
    code = """
refused(MemoryError, lambda: memory.alloc(800))
block = memory.alloc(700)
refused(MemoryError, lambda: memory.alloc(100))
del block
memory.alloc(744)
"""
    assert said(code, standin, STANDIN_MEMORY="1000").count("the CUDA device has too little memory, cuMemAlloc") == 2
