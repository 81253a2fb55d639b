"""Too little memory is said to be that, whoever says so and in whatever words, and not that something is not installed."""

import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from mpcompile.cli import main
from mpcompile.cli.address_space import LEAST, LEAST_COMPILING
from mpcompile.errors import MissingDependency, ModelError, ResourceError, lack_of_memory
from mpcompile.runtime import tvm_runtime
from tests.faults.conftest import TARGET, contents
from tests.faults.workshop import Workshop
from tests.patience import SOON

WORDS = [
    MemoryError(),
    MemoryError("Unable to allocate 7.63 GiB for an array with shape (1024, 1000000)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("Resource temporarily unavailable"),
    RuntimeError("can't start new thread"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("libtvm_compiler.so: failed to map segment from shared object"),
    ImportError("a page of advice\n\nOriginal error was: libblas.so: failed to map segment from shared object\n"),
]


@pytest.mark.parametrize("error", WORDS, ids=repr)
def test_it_is_known_by_its_words(error, capsys, monkeypatch):
    found = lack_of_memory(error)
    assert isinstance(found, ResourceError) and str(found).startswith("out of memory") and "advice" not in str(found)

    def fail(args):
        raise error

    monkeypatch.setattr("mpcompile.cli.verbs.targets.work", fail)
    assert main(["targets"]) == 2 and capsys.readouterr().err == f"mpcompile: {found}\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("bad"), OSError(errno.ENOSPC, "No space left"), ModelError("std::bad_alloc.onnx: damaged")]
)
def test_what_it_is_not(error):
    assert lack_of_memory(error) is None


@pytest.mark.parametrize(
    "error, kind", [(RuntimeError("std::bad_alloc"), ResourceError), (RuntimeError("an old libc"), MissingDependency)]
)
def test_the_runtime_does_not_load(error, kind, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.delitem(sys.modules, "tvm", raising=False)
    monkeypatch.setattr(tvm_runtime, "_load_runtime", fail)
    with pytest.raises(kind) as raised:
        tvm_runtime.tvm_ffi.__wrapped__()
    assert ("pip install" in str(raised.value)) == (kind is MissingDependency)


@pytest.fixture(scope="module")
def bare():
    """A workshop that has not loaded TVM."""
    found = Workshop("mpcompile.cli.doctor", "mpcompile.runtime.bundle", "mpcompile.runtime.executor", "msgspec")
    yield found
    found.close()


MAP = 200 << 20
"""Bytes in which TVM's compiler, of 260 MB, finds no place, but all else does."""


def test_no_room_for_the_compiler(bare, model, tmp_path):
    """TVM itself goes on without it, and tells nobody."""
    place = {"at": "mpcompile.cli.doctor:_runtime", "what": "memory", "room": MAP}
    ended = bare.run(["compile", model, "--target", TARGET, "-o", "m.mpc"], tmp_path, **place)
    assert ended.reached and ended.code == 2 and "pip install" not in ended.line
    assert "out of memory" in ended.line and "ulimit -v allows" in ended.line
    ended = bare.run(["doctor"], tmp_path, **place)
    assert ended.reached and ended.code == 4 and "ulimit -v" in ended.out and contents(tmp_path) == {}


def test_no_room_for_the_runtime(bare, workshop, model, tmp_path):
    assert workshop.run(["compile", model, "--target", TARGET, "-o", "m.mpc"], tmp_path).code == 0
    np.savez(tmp_path / "x.npz", x=np.ones((32, 8, 8), np.float32))
    command = ["run", "m.mpc", "--input", "x.npz", "--output", "y.npz"]
    place = {"at": "mpcompile.runtime.tvm_runtime:_load_runtime", "what": "memory", "room": 1 << 20}
    ended = bare.run(command, tmp_path, **place)
    assert ended.reached and ended.code == 2 and "out of memory" in ended.line and "pip" not in ended.line
    np.savez(tmp_path / "x.npz", x=np.ones((4096, 32, 8, 8), np.float32))
    ended = workshop.run(command, tmp_path, at="mpcompile.cli.arrays:read_arrays", what="memory", room=8 << 20)
    assert ended.reached and ended.code == 2 and "Unable to allocate" in ended.line
    assert not (tmp_path / "y.npz").exists() and workshop.run(command, tmp_path).code == 0


@pytest.mark.parametrize("least, verb", [(LEAST, "targets"), (LEAST, "run"), (LEAST_COMPILING, "compile")])
def test_less_address_space_than_loading_takes(least, verb, model, tmp_path):
    """OpenBLAS would end the process with 1, which stands for a difference that verify found; LLVM would abort."""
    options = {"targets": [], "run": ["m.mpc", "--input", "x", "--output", "y"], "compile": [model, "-o", "m.mpc"]}[
        verb
    ]
    most = least - (1 << 20)
    done = subprocess.run(
        [sys.executable, "-m", "mpcompile", verb, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=SOON,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"at least {least >> 20} MiB" in done.stderr and f"allows {most >> 20} MiB" in done.stderr
