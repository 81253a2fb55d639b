"""Opening and running a bundle takes TVM's runtime alone, and leaves nothing behind."""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.patience import SOON


def fresh(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints last."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=SOON
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_neither_the_compiler_nor_torch_is_loaded(bundle_path):
    code = """
        import json, sys
        import numpy as np
        import mpcompile as mp
        with mp.open_bundle(sys.argv[1]) as bundle:
            bundle.run({"x": np.zeros((4, 8, 8), np.float32)})
            bundle.bench(0.05)
        heavy = {"tvm", "torch", "onnx", "onnxruntime"} & set(sys.modules)
        mapped = [line.split("/")[-1].strip() for line in open("/proc/self/maps") if "libtvm" in line]
        print(json.dumps([sorted(heavy), sorted(set(mapped))]))
    """
    heavy, mapped = json.loads(fresh(code, str(bundle_path)))
    assert heavy == []
    assert "libtvm_runtime.so" in mapped and "libtvm_compiler.so" not in mapped


@pytest.mark.parametrize("order", ["tvm, torch", "torch, tvm", "mp, tvm, torch", "mp, torch, tvm"])
def test_whatever_is_loaded_before_and_after(bundle_path, order):
    """The bundle runs, TVM compiles and torch's tensors reach TVM, whichever of them came first."""
    code = """
        import sys
        import numpy as np

        def bundle():
            import mpcompile as mp
            with mp.open_bundle(sys.argv[1]) as opened:
                return opened.run({"x": np.ones((4, 8, 8), np.float32)})

        first = None
        for name in sys.argv[2].split(", "):
            if name == "mp":
                first = bundle()
            else:
                __import__(name)
        import torch, tvm
        from tvm import te
        x = te.placeholder((4,), "float32", name="x")
        f = tvm.compile(te.create_prim_func([x, te.compute((4,), lambda i: x[i] + 1.0)]), target="llvm")["main"]
        given, out = torch.arange(4.0), torch.zeros(4)
        f(tvm.runtime.from_dlpack(given), tvm.runtime.from_dlpack(out))
        assert out.tolist() == [1, 2, 3, 4]
        assert first is None or (bundle() == first).all()
        print(float(bundle().sum()))
    """
    values = {fresh(code, str(bundle_path), order)}
    assert values == {fresh(code, str(bundle_path), "tvm")}


def test_opening_and_closing_leaves_nothing_mapped(bundle_path):
    """Neither a mapping nor a thread nor an open file for each time."""
    code = """
        import gc, os, sys
        import numpy as np
        import mpcompile as mp

        def again():
            for _ in range(10):
                with mp.open_bundle(sys.argv[1]) as bundle:
                    bundle.run({"x": np.zeros((4, 8, 8), np.float32)})
            gc.collect()
            libraries = sum("lib.so" in line for line in open("/proc/self/maps"))
            return libraries, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

        assert again()[1:] == again()[1:]
        print(again()[0])
    """
    assert fresh(code, str(bundle_path)) == "0"


@pytest.mark.parametrize("missing", ["tvm_ffi", "tvm"])
def test_what_is_not_installed_is_named(bundle_path, missing):
    code = """
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name == sys.argv[2]:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Absent())
        import mpcompile as mp
        from mpcompile.errors import MissingDependency
        try:
            mp.open_bundle(sys.argv[1])
        except MissingDependency as error:
            print(error)
    """
    message = fresh(code, str(bundle_path), missing)
    assert f"needs TVM's runtime (No module named '{missing}')" in message and "pip install apache-tvm==" in message
