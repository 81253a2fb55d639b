"""A bundle for CUDA, opened and run in processes of their own by the stand-in for the driver."""

import numpy as np

from mpcompile.runtime.archive import read_manifest
from tests.cuda import standin as standins
from tests.cuda.small_network import SHAPE, code, expected, write

HEAD = """
import ctypes, gc, sys
import numpy as np
from mpcompile.runtime import open_bundle
from tests.cuda.small_network import SHAPE, expected

driver = ctypes.CDLL("libcuda.so.1")
left = lambda: (driver.standin_bytes(), driver.standin_handles())
calls = lambda name: driver.standin_calls(name.encode())
x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
"""


def done(code, bundle, standin, **environment):
    """What a process says that must end well."""
    found = standins.run(HEAD + code, bundle, standin=standin, **environment)
    assert found.returncode == 0 and not found.stderr, found.stderr
    return found.stdout


def test_it_runs_with_the_driver_alone(bundle, standin):
    """One graph and two copies a run; nothing of TVM; nothing left behind."""
    code = """
with open_bundle(sys.argv[1], 1) as bundle:
    captured = calls("cuLaunchKernel")
    for scale in (1, -3, 0.5):
        np.testing.assert_array_equal(bundle.run(x * np.float32(scale)), expected(x * np.float32(scale)))
    assert calls("cuLaunchKernel") == captured == 3
    assert calls("cuGraphLaunch") == calls("cuMemcpyDtoHAsync") == 3 and calls("kernel") == 9
    assert left()[0] > 0 and bundle.variant.kind == "cuda"
gc.collect()
print(left(), sorted({"tvm", "tvm_ffi", "torch"} & set(sys.modules)))
"""
    assert done(code, bundle, standin) == "(0, 0) []\n"


def test_batches_and_dtypes(bundle, standin):
    code = """
with open_bundle(sys.argv[1]) as bundle:
    several = np.stack([x, 2 * x, -x])
    np.testing.assert_array_equal(bundle.run(several), np.stack([expected(v) for v in several]))
    assert bundle.run(several[:0]).shape == (0, *SHAPE)
    np.testing.assert_array_equal(bundle.run(x.astype(np.float64)), expected(x))
    np.testing.assert_array_equal(bundle.run(np.asfortranarray(x)), expected(x))
    np.testing.assert_array_equal(bundle.run({"x": x[None]}), expected(x)[None])
"""
    done(code, bundle, standin)


def test_a_trace_has_every_buffer_as_it_was_written(bundle, standin):
    code = """
with open_bundle(sys.argv[1]) as bundle:
    trace = bundle.run_traced(x)
    np.testing.assert_array_equal(trace["x"]["x:plain"], x)
    np.testing.assert_array_equal(trace["y"]["y:plain"] ** 2, expected(x))
    np.testing.assert_array_equal(trace["z"]["z:plain"], expected(x))
    assert calls("cuGraphLaunch") == 0
"""
    done(code, bundle, standin)


def test_it_is_timed_by_events(bundle, standin):
    code = """
with open_bundle(sys.argv[1], 1) as bundle:
    mine = x.copy()
    timer = bundle.timer(mine)
    mine[:] = 0  # it has been copied
    before = calls("cuGraphLaunch")
    assert 0 < timer.seconds(5) < 1 and timer.waited() == 0
    assert calls("cuGraphLaunch") == before + 5
    layers = bundle.layer_timers(x)
    assert list(layers) == ["first", "second"]
    before = calls("kernel")
    layers["second"].seconds(4)
    assert calls("kernel") == before + 8
    np.testing.assert_array_equal(bundle.run(x), expected(x))
    print(bundle.bench(0.02).seconds > 0, list(bundle.profile(0.02)))
"""
    assert done(code, bundle, standin) == "True ['first', 'second']\n"


def test_threads_and_bundles_do_not_disturb_each_other(bundle, standin):
    code = """
from concurrent.futures import ThreadPoolExecutor
with open_bundle(sys.argv[1]) as one, open_bundle(sys.argv[1]) as other:
    def work(i):
        v = x * np.float32(i)
        for bundle in (one, other):
            np.testing.assert_array_equal(bundle.run(v), expected(v))
        if i % 7 == 0:
            open_bundle(sys.argv[1]).run(v)  # another graph is captured meanwhile
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
del one, other
gc.collect()
print(left())
"""
    assert done(code, bundle, standin) == "(0, 0)\n"


def test_a_single_kernel(bundle, standin):
    code = """
from mpcompile.runtime.archive import read_archive
from mpcompile.runtime.device import Kernel, LocalDevice
from tests.cuda.small_network import small_plan
from tests.runtime.small_bundle import small_weights
from dataclasses import replace
library = bytes(read_archive(sys.argv[1]).members["a100.cuda"])
plan = replace(small_plan(), calls=small_plan().calls[:1])
kernel = Kernel(library, plan, np.frombuffer(small_weights(), np.uint8), "cuda", "sm_80", ())
found = LocalDevice().time_kernels({"k": kernel}, 1, stirred=4096, rounds=3, min_time=0.001)
print(found["k"].seconds > 0)
"""
    assert done(code, bundle, standin) == "True\n"


def test_a_forked_child_is_told(bundle, standin):
    code = """
import os
from mpcompile.errors import TargetError
bundle = open_bundle(sys.argv[1])
bundle.run(x)
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(bundle.run(x), expected(x))
else:
    for work in (lambda: bundle.run(x), lambda: open_bundle(sys.argv[1])):
        try:
            work()
        except TargetError as error:
            print(error)
    del bundle
    sys.stdout.flush()
    os._exit(0)
"""
    said = done(code, bundle, standin).splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith("CUDA was in use before this process was forked, and cannot be used here: fork first")


def test_the_cubin_that_is_nearest_is_loaded(tmp_path, standin):
    good = code().cubins["sm_80"]
    bundle = write(tmp_path / "m.mpc", cubins={"sm_50": b"none", "sm_80": b"none", "sm_86": good, "sm_87": b"none"})
    text = "np.testing.assert_array_equal(open_bundle(sys.argv[1]).run(x), expected(x))"
    done(text, bundle, standin, STANDIN_ARCH="89")


def test_the_command_line_runs_it(tmp_path, bundle, standin):
    x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    found = standins.command(
        "run", bundle, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz", standin=standin
    )
    assert found.returncode == 0, found.stderr
    with np.load(tmp_path / "y.npz") as arrays:
        np.testing.assert_array_equal(arrays["z"], np.stack([expected(v) for v in x]))


def test_the_library_has_a_name_of_its_own(bundle):
    """Nothing takes it for a shared library."""
    manifest = read_manifest(bundle)
    assert manifest["variants"][0]["library"] == "a100.cuda" and "a100.cuda" in manifest["members"]


def test_without_a_driver_it_does_not_open(tmp_path, bundle):
    found = standins.run(
        "import sys; from mpcompile.runtime import open_bundle; open_bundle(sys.argv[1])",
        bundle,
        standin=standins.none(tmp_path),
    )
    assert "TargetError" in found.stderr and "was built for sm_80: this machine has no CUDA driver (" in found.stderr
