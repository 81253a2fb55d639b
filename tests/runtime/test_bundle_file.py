"""Bundles that are damaged, cut, foreign, or for another machine; and writing them whole or not at all."""

import json
import os
import random
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from mpcompile.errors import ModelError, MpError, TargetError, UsageError
from mpcompile.ir.plan import Arg, Call
from mpcompile.runtime import archive, open_bundle
from mpcompile.runtime.memory import CpuMemory
from mpcompile.runtime.shared_weights import joined
from mpcompile.targets import cpu
from tests.foreign_zip import use_foreign_compression
from tests.patience import SOON
from tests.runtime.small_bundle import BIAS, SHAPE, small_plan, small_target, small_variant, small_weights, write_small


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_same_content_gives_the_same_bytes(tmp_path, library):
    files = [write_small(tmp_path / f"{i}.mpc", small_variant(library)) for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    manifest = archive.read_manifest(files[0])
    assert manifest["members"]["x86-64-v2.weights"]["bytes"] == len(small_weights())
    assert manifest["tvm"] == archive.tvm_version() != ""
    assert {*os.listdir(tmp_path)} == {"0.mpc", "1.mpc"}


def test_weights_are_aligned(bundle_path):
    weights = joined(["x86-64-v2.weights"], archive.read_archive(bundle_path).members, CpuMemory())
    assert weights.ctypes.data % 64 == 0 and weights.tobytes() == small_weights()


def test_weights_are_read_into_their_place(bundle_path):
    """Those of a bundle for one board are stored as they are, and used where they were read."""
    with zipfile.ZipFile(bundle_path) as z:
        methods = {info.filename: info.compress_type for info in z.infolist()}
    assert methods.pop("x86-64-v2.weights") == zipfile.ZIP_STORED and set(methods.values()) == {zipfile.ZIP_DEFLATED}
    members = archive.read_archive(bundle_path).members
    weights = joined(["x86-64-v2.weights"], members, CpuMemory())
    assert np.shares_memory(weights, np.frombuffer(members["x86-64-v2.weights"], np.uint8))
    moved = np.frombuffer(b"." + small_weights(), np.uint8)[1:]
    copied = CpuMemory().take(moved)
    assert copied.ctypes.data % 64 == 0 and copied.tobytes() == small_weights() and not np.shares_memory(copied, moved)


def test_bundles_with_deflated_weights_are_read(bundle_path):
    weights = archive.read_archive(bundle_path).members["x86-64-v2.weights"]
    with zipfile.ZipFile(bundle_path) as z:
        data, comment = {name: z.read(name) for name in z.namelist()}, z.comment
    with zipfile.ZipFile(bundle_path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, value in data.items():
            z.writestr(name, value)
        z.comment = comment
    assert archive.read_archive(bundle_path).members["x86-64-v2.weights"] == weights
    open_bundle(bundle_path).close()


def test_a_forged_size_of_stored_weights_reserves_no_memory(bundle_path):
    """Directory and manifest may both say that a member is larger than the file."""
    with zipfile.ZipFile(bundle_path) as z:
        manifest = json.loads(z.read("manifest.json"))
        info = z.getinfo("x86-64-v2.weights")
    manifest["members"]["x86-64-v2.weights"]["bytes"] = 1 << 31
    rewritten(bundle_path, {"manifest.json": json.dumps(manifest).encode()})
    whole = bundle_path.read_bytes()
    sizes = struct.pack("<II", info.file_size, info.file_size)
    at = whole.rindex(sizes)  # of the directory's entry
    bundle_path.write_bytes(whole[:at] + struct.pack("<II", 1 << 31, 1 << 31) + whole[at + 8 :])
    with pytest.raises(ModelError, match=r"x86-64-v2.weights is (smaller|larger) than its manifest says"):
        archive.read_archive(bundle_path)


def test_every_cut_is_noticed(bundle_path, tmp_path):
    whole = bundle_path.read_bytes()
    for length in [
        0,
        1,
        4,
        21,
        22,
        100,
        len(whole) // 2,
        len(whole) - 200,
        len(whole) - 66,
        len(whole) - 22,
        len(whole) - 1,
    ]:
        cut = tmp_path / "cut.mpc"
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError) as error:
            open_bundle(cut)
        assert "cut.mpc" in one_line(error)


def test_a_flipped_byte_never_changes_what_is_read(bundle_path, tmp_path):
    """Whatever byte is hit: refused in one line, or a byte that nothing uses (a date) and the same contents."""
    whole, good = bundle_path.read_bytes(), archive.read_archive(bundle_path)
    random.seed(5)
    tail = range(len(whole) - 400, len(whole))  # the directory, the end record, the comment
    places = sorted({*tail, *range(64), *(random.randrange(len(whole)) for _ in range(300))})
    refused = 0
    for place in places:
        bad = bytearray(whole)
        bad[place] ^= 1 << random.randrange(8)
        path = tmp_path / "bad.mpc"
        path.write_bytes(bad)
        try:
            found = archive.read_archive(path)
        except MpError as error:
            assert "\n" not in str(error) and "bad.mpc" in str(error)
            refused += 1
        else:
            assert found.manifest == good.manifest and found.members == good.members
    assert refused > len(places) / 2


def test_foreign_files(tmp_path):
    text = tmp_path / "text.mpc"
    text.write_text("hello")
    other = tmp_path / "other.mpc"
    with zipfile.ZipFile(other, "w") as z:
        z.writestr("a.txt", "hello")
    for path in (text, other):
        with pytest.raises(ModelError, match="is not a bundle"):
            open_bundle(path)
    with pytest.raises(UsageError, match="no such file"):
        open_bundle(tmp_path / "none.mpc")
    with pytest.raises(UsageError, match="is not a file"):
        open_bundle(tmp_path)


def test_members_compressed_by_a_method_that_python_lacks(bundle_path):
    use_foreign_compression(bundle_path)
    with pytest.raises(ModelError, match="damaged: manifest.json: That compression method is not supported") as error:
        open_bundle(bundle_path)
    one_line(error)


def rewritten(path, members):
    """The bundle with members replaced and the manifest's own hash made right again: what a forger would write."""
    with zipfile.ZipFile(path) as z:
        data = {name: z.read(name) for name in z.namelist()}
    data.update(members)
    with zipfile.ZipFile(path, "w") as z:
        for name, value in data.items():
            z.writestr(name, value)
        z.comment = archive._comment(data["manifest.json"])
    return path


def test_a_replaced_member_fails_its_hash_before_it_is_loaded(bundle_path):
    name = "x86-64-v2.so"
    with pytest.raises(ModelError, match=f"the sha256 of {name} does not hold"):
        open_bundle(rewritten(bundle_path, {name: b"x" * len(archive.read_archive(bundle_path).members[name])}))


def test_a_larger_member_is_not_read_to_its_end(bundle_path):
    with pytest.raises(ModelError, match="x86-64-v2.weights is larger than its manifest says"):
        open_bundle(rewritten(bundle_path, {"x86-64-v2.weights": bytes(1 << 20)}))


@pytest.mark.parametrize("name", ["x86-64-v2.so", "x86-64-v2.weights", "more.txt"])
def test_members_are_those_of_the_manifest(bundle_path, name):
    manifest = archive.read_manifest(bundle_path)
    manifest["members"].pop(name, None)
    members = {"manifest.json": json.dumps(manifest).encode(), name: b""}
    with pytest.raises(ModelError, match="is damaged: its members are"):
        open_bundle(rewritten(bundle_path, members))


@pytest.mark.parametrize(
    "text", [b"[]", b"{}", b"nonsense", b'{"format": "mpcompile-bundle", "format_version": 2}', b"[" * 100_000]
)
def test_a_manifest_of_another_form(bundle_path, text):
    with pytest.raises(ModelError, match="manifest.json"):
        open_bundle(rewritten(bundle_path, {"manifest.json": text}))


WRONG = (None, 3, [], {}, "x", [1])


@pytest.mark.parametrize(
    "key, value",
    [
        (key, value)
        for key in ("target", "plan", "layers", "library", "weights")
        for value in WRONG
        if (key, value) != ("layers", [])
    ],
)
def test_a_manifest_with_wrong_entries(bundle_path, key, value):
    """(No layers to tell about is a valid list.)"""
    manifest = archive.read_manifest(bundle_path)
    manifest["variants"][0][key] = value
    with pytest.raises(ModelError, match="small.mpc") as error:
        open_bundle(rewritten(bundle_path, {"manifest.json": json.dumps(manifest).encode()}))
    one_line(error)


@pytest.mark.parametrize("value", WRONG)
def test_a_manifest_with_wrong_variants(bundle_path, value):
    manifest = archive.read_manifest(bundle_path) | {"variants": value}
    with pytest.raises(ModelError, match="small.mpc") as error:
        open_bundle(rewritten(bundle_path, {"manifest.json": json.dumps(manifest).encode()}))
    one_line(error)


def test_another_format_version(bundle_path, monkeypatch, tmp_path, library):
    monkeypatch.setattr(archive, "FORMAT_VERSION", 99)
    newer = write_small(tmp_path / "new.mpc", small_variant(library))
    monkeypatch.undo()
    with pytest.raises(ModelError, match="bundle format 99; this version reads 2"):
        open_bundle(newer)


def test_another_cpu(tmp_path, library):
    target = small_target(features=["sse4_2", "avx512_never", "amx_never"])
    path = write_small(tmp_path / "cpu.mpc", small_variant(library, target=target))
    with pytest.raises(TargetError, match="needs avx512_never, amx_never, which this CPU") as error:
        open_bundle(path)
    assert cpu.name() in one_line(error)
    path = write_small(path, small_variant(library, target=small_target(arch="riscv64")))
    with pytest.raises(TargetError, match="built for riscv64, this machine is"):
        open_bundle(path)


def test_another_tvm(bundle_path):
    manifest = archive.read_manifest(bundle_path)
    path = rewritten(bundle_path, {"manifest.json": json.dumps({**manifest, "tvm": "0.26.0"}).encode()})
    with pytest.raises(TargetError, match="built with TVM 0.26.0"):
        open_bundle(path)


def test_a_library_that_is_none(tmp_path):
    path = write_small(tmp_path / "none.mpc", small_variant(b"\x7fELF nonsense"))
    with pytest.raises(TargetError, match="does not load the bundle's library") as error:
        open_bundle(path)
    one_line(error)


@pytest.mark.parametrize(
    "arg, told",
    [
        (Arg("weights", 1 << 20, "float32", (4,)), "at byte 1048576 of the weights"),
        (Arg("weights", 4, "float32", (4,)), "at byte 4 of the weights"),
        (Arg("weights", -64, "float32", (4,)), "at byte -64"),
        (Arg("workspace", 1024, "float32", (4,)), "of the workspace"),
        (Arg("input", 1, "float32", SHAPE), "input 1, and there are 1"),
        (Arg("output", 0, "float32", (3,)), "uses output 0"),
        (Arg("elsewhere", 0, "float32", (4,)), "space 'elsewhere'"),
        (Arg("weights", 0, "float99", (4,)), "dtype 'float99'"),
    ],
)
def test_a_plan_that_leaves_its_blocks(tmp_path, library, arg, told):
    """TVM's kernels check no bounds and crash on a misaligned address, so the plan is checked before anything runs."""
    plan = small_plan()
    plan = replace(plan, calls=(*plan.calls, Call("square", "bad", (arg, arg))))
    path = write_small(tmp_path / "bad.mpc", small_variant(library, plan=plan))
    with pytest.raises(ModelError, match=told):
        open_bundle(path)


def test_a_plan_that_calls_what_is_not_there(tmp_path, library):
    plan = small_plan()
    plan = replace(plan, calls=(replace(plan.calls[0], function="absent"),))
    path = write_small(tmp_path / "bad.mpc", small_variant(library, plan=plan))
    with pytest.raises(ModelError, match="no function absent"):
        open_bundle(path)


def test_nothing_is_left_when_writing_fails(tmp_path, library, monkeypatch):
    old = write_small(tmp_path / "m.mpc", small_variant(library)).read_bytes()

    def interrupted(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_small(tmp_path / "m.mpc", small_variant(b"new"))
    with pytest.raises(KeyboardInterrupt):
        write_small(tmp_path / "new.mpc", small_variant(b"new"))
    assert os.listdir(tmp_path) == ["m.mpc"] and (tmp_path / "m.mpc").read_bytes() == old


def test_where_it_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        write_small(tmp_path / "none" / "m.mpc", small_variant(b""))
    with pytest.raises(UsageError, match="it is a folder"):
        write_small(tmp_path, small_variant(b""))


RUNTIME_ONLY = """
import os, sys, numpy as np
import mpcompile.runtime as runtime
x = np.ones((4, 8, 8), np.float32)
with runtime.open_bundle(sys.argv[1], threads={threads}) as bundle:
    out = bundle.run(x)
    workers = len(os.listdir("/proc/self/task")) - {others}
import tvm
assert "tvm_compiler" not in tvm.base._LOADED_LIBS, "the compiler was loaded"
assert not any(m == "onnx" or m.startswith("mpcompile.compiler") for m in sys.modules)
print(out[:, 0, 0].tolist(), workers)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_runtime_alone_runs_it_on_so_many_threads(bundle_path, threads):
    """Without TVM's compiler. By the system's count: one thread makes no worker, more a pool for every CPU."""
    if threads > len(cpu.allowed()):
        with pytest.raises(UsageError, match="CPUs"):
            open_bundle(bundle_path, threads=threads)
        return
    before = subprocess.run(
        [sys.executable, "-c", "import tvm, os; print(len(os.listdir('/proc/self/task')))"],
        timeout=SOON,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TVM_USE_RUNTIME_LIB": "1"},
    )
    code = RUNTIME_ONLY.format(threads=threads, others=int(before.stdout))
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_path)],
        capture_output=True,
        text=True,
        timeout=SOON,
        env={**os.environ, "TVM_USE_RUNTIME_LIB": "1"},
    )
    assert done.returncode == 0, done.stderr
    expected = ((2 + BIAS) ** 2).tolist()
    workers = (len(cpu.allowed()) if threads > 1 else 1) - 1
    assert done.stdout.split("]") == [str(expected)[:-1], f" {workers}\n"]


@pytest.mark.skipif(len(cpu.allowed()) < 2, reason="this process may use one CPU")
def test_thread_count_changes_in_one_process(bundle_path):
    import tvm_ffi

    used = tvm_ffi.get_global_func("runtime.NumThreads")
    x = np.ones(SHAPE, np.float32)
    with open_bundle(bundle_path, threads=2) as two, open_bundle(bundle_path, threads=1) as one:
        for bundle in (two, one, two, one):
            bundle.run(x)
            assert used() == bundle.threads


def test_no_library_file_is_left_behind(bundle_path, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with open_bundle(bundle_path, threads=1) as bundle:
        assert os.listdir(folder) == []
        bundle.run(np.ones(SHAPE, np.float32))
