"""Libraries of rewritten modules where they are used: in a process with TVM's runtime alone, side by side, by threads."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tvm
import tvm_ffi

from mpcompile.relax import BitSerialize
from tests.patience import PATIENCE
from tests.relax.modules import Maker, calls_of, run
from tests.relax.test_pass import integers, layer

SCRIPT = """
import json, sys
from pathlib import Path
sys.modules["mpcompile"] = None                                  # whoever imports it fails
import numpy as np, tvm
from tvm.runtime.vm import VirtualMachine
x, *libraries = sys.argv[1:]
x = tvm.runtime.tensor(np.load(x))
machines = [VirtualMachine(tvm.runtime.load_module(path), tvm.cpu()) for path in libraries]
for path, machine in zip(libraries, machines):
    np.save(path + ".npy", machine["main"](x).numpy())
def busy():
    return [int((task / "schedstat").read_text().split()[0]) for task in sorted(Path("/proc/self/task").iterdir())]
before = busy()
for _ in range(200):
    machines[0]["main"](x)
maps = Path("/proc/self/maps").read_text()
print(json.dumps({"busy": [now - then for now, then in zip(busy(), before)], "compiler": "libtvm_compiler" in maps}))
"""


def of_seed(seed):
    def body(maker, x):
        maker.rng = np.random.default_rng(seed)
        return maker.conv(maker.quantized(x), 32, 48)

    return Maker((3, 32, 24, 24)).module(body)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """Two modules with the same names in them, run by one process without compiler and mpcompile, three threads: (what
    TVM's own operators compute, what their libraries did) of each, and what that process said."""
    folder = tmp_path_factory.mktemp("deployed")
    x = integers((3, 32, 24, 24))
    np.save(folder / "x.npy", x)
    modules, libraries = [of_seed(1), of_seed(2)], [folder / "one.so", folder / "two.so"]
    for mod, library in zip(modules, libraries):
        tvm.compile(BitSerialize(say=None)(mod), target="llvm").export_library(str(library))
    settings = {"TVM_USE_RUNTIME_LIB": "1", "TVM_NUM_THREADS": "3", "TVM_THREAD_POOL_SPIN_COUNT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "x.npy"), *map(str, libraries)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    found = [(run(mod, x)[0], np.load(f"{library}.npy")) for mod, library in zip(modules, libraries)]
    return found, json.loads(done.stdout.splitlines()[-1])


def test_two_modules_in_a_process_without_a_compiler(deployed):
    found, said = deployed
    assert not said["compiler"]
    for theirs, mine in found:
        np.testing.assert_array_equal(mine, theirs)
    assert (found[0][1] != found[1][1]).any()


def test_a_region_runs_on_the_threads_of_tvms_pool(deployed):
    busy = deployed[1]["busy"]
    assert len(busy) >= 3 and sum(b > max(busy) / 10 for b in busy) >= 2, busy


def test_a_pass_over_what_a_pass_made():
    """What is in a region already stays there; what came later, with the same in it, gets a symbol of its own."""
    mod = Maker((1, 4, 6, 6)).module(layer)
    once = BitSerialize(say=None)(mod)
    again = BitSerialize(say=None)(once)
    assert tvm_ffi.structural_equal(again["main"], once["main"]) and len(again.attrs["external_mods"]) == 1
    once.update_func(once.get_global_var("main"), mod["main"])  # a user's pass put it back
    twice = BitSerialize(say=None)(once)
    assert calls_of(twice) == ["relax.call_dps_packed"] and len(twice.attrs["external_mods"]) == 2
    x = integers((1, 4, 6, 6))
    np.testing.assert_array_equal(run(twice, x)[0], run(mod, x)[0])
