"""compile_model from outside: what it writes, dumps and refuses, and that a failure leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.export_c import export_c
from mpcompile.cli.doctor import examine
from mpcompile.compiler import linker
from mpcompile.errors import ModelError, TargetError, UsageError
from mpcompile.frontend import load
from mpcompile.kernels.families import families
from mpcompile.runtime.archive import read_manifest
from mpcompile.runtime.bundle import open_bundle
from tests.patience import PATIENCE

DATA = Path(__file__).parents[1] / "data"
MODEL = DATA / "brevitas_residual_w3a4.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return compile_model(
        MODEL, output=tmp_path_factory.mktemp("bundle") / "model.mpc", dump_ir=tmp_path_factory.getbasetemp() / "dump"
    )


def test_the_manifest_tells_every_layer(bundle):
    rows = read_manifest(bundle)["variants"][0]["layers"]
    parts = [part for row in rows for part in row.get("parts", [])]
    assert sum(len(row.get("source", [])) for row in rows) >= len(rows)
    names = {family.name for family in families()}
    assert all(part["family"] in names and part["macs"] > 0 for part in parts)
    assert {len(part["weight_grid"]["plane_weights"]) for part in parts} >= {3}
    assert all(row["macs"] == sum(p["macs"] for p in row["parts"]) for row in rows if "parts" in row)
    stored = {p.buffer.key for p in open_bundle(bundle, 1).plan.buffers}
    assert {f"{o['tensor']}:{f}" for row in rows for o in row["outputs"] for f in o["formats"]} <= stored
    json.dumps(rows)


def test_each_phase_leaves_its_text(bundle, tmp_path):
    folder = bundle.parent.parent / "dump"
    names = [p.name for p in sorted(folder.iterdir())]
    assert [n.split("-", 1)[0] for n in names] == [f"{i:02}" for i in range(1, len(names) + 1)]
    assert names[0] == "01-import.txt"
    ending = [n.split("-", 1)[1] for n in names[-4:]]
    assert ending == ["formats.txt", "float.txt", "kernels.txt", "plan.txt"]
    text = {n.split("-", 1)[1]: (folder / n).read_text() for n in names}
    assert "Conv " in text["import.txt"] and "bias" in text["import.txt"]
    assert "fma(" in text["layers-fuse_layers.txt"] and "codes uint8" in text["formats.txt"]
    assert "no float operators" in text["float.txt"]
    called = {call["function"] for call in json.loads(text["plan.txt"])["calls"]}
    assert called and {f for f in called if f"# {f}: " in text["kernels.txt"]} == called
    assert text["kernels.txt"].count("def main") == len(called)
    assert "# tile {" in text["kernels.txt"] and "T.prim_func" in text["kernels.txt"]


def test_a_dump_replaces_the_one_before(tmp_path):
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "77-formats.txt").write_text("old")
    (tmp_path / "dump" / "notes.txt").write_text("mine")
    compile_model(DATA / "brevitas_mlp_w3a3.onnx", output=tmp_path / "m.mpc", dump_ir=tmp_path / "dump")
    names = {p.name for p in (tmp_path / "dump").iterdir()}
    assert "77-formats.txt" not in names and {"notes.txt", "01-import.txt"} <= names


def test_the_same_model_gives_the_same_bytes(bundle, tmp_path):
    assert compile_model(MODEL, output=tmp_path / "again.mpc").read_bytes() == bundle.read_bytes()


def test_a_bundle_runs_with_the_runtime_alone(bundle, tmp_path):
    """As on a board: without TVM's compiler library."""
    x = np.load(MODEL.with_suffix(".npz"))["x"]
    np.save(tmp_path / "x.npy", x)
    code = """
import sys, numpy as np, mpcompile as mp
with mp.open_bundle(sys.argv[1], 1) as bundle:
    np.save(sys.argv[3], bundle.run(np.load(sys.argv[2])))
loaded = open("/proc/self/maps").read()
assert "libtvm_compiler" not in loaded and "libtvm_runtime" in loaded
"""
    subprocess.run(
        [sys.executable, "-c", code, bundle, tmp_path / "x.npy", tmp_path / "y.npy"],
        check=True,
        timeout=PATIENCE,
        env=os.environ | {"TVM_USE_RUNTIME_LIB": "1"},
    )
    with open_bundle(bundle, 1) as here:
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), here.run(x))


def test_forced_families(tmp_path):
    """Every contraction but that of the image itself, whose one channel would leave 63 of a word's 64 bits empty."""
    for family in ("popcount", "dot"):
        path = compile_model(MODEL, output=tmp_path / f"{family}.mpc", families={"*": family})
        parts = [p for row in read_manifest(path)["variants"][0]["layers"] for p in row.get("parts", [])]
        assert {p["family"] for p in parts if p["kernel"][1] > 4} == {family}


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"target": "pdp11"}, TargetError, "there is no target pdp11"),
        ({"families": {"*": "magic"}}, UsageError, "magic is no kernel family"),
        ({"families": {"nowhere": "dot"}}, UsageError, "nowhere"),
        ({"output": "missing/model.mpc"}, UsageError, "there is no folder"),
        ({"output": "."}, UsageError, "it is a folder"),
        ({"dump_ir": "file"}, UsageError, "cannot dump into"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(options, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(error, match=words) as caught:
        compile_model(MODEL, **{"output": "model.mpc", **options})
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_without_a_linker(tmp_path, monkeypatch):
    monkeypatch.setattr(linker, "find_linker", lambda triple: None)
    with pytest.raises(TargetError, match="needs a C compiler and none was found: install gcc or clang.*ziglang"):
        compile_model(DATA / "brevitas_mlp_w3a3.onnx", output=tmp_path / "m.mpc")
    assert not list(tmp_path.iterdir())


def test_a_linker_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    with pytest.raises(TargetError, match="did not link"):
        compile_model(DATA / "brevitas_mlp_w3a3.onnx", output=tmp_path / "m.mpc")
    assert not list(tmp_path.iterdir())


def test_a_linker_that_the_user_named_and_that_is_not_there(tmp_path, monkeypatch):
    """Whoever sets CC wants that one, not what happens to be installed."""
    monkeypatch.setenv("CC", "/nonexistent/cc -m64")
    for compiles in (compile_model, export_c):
        with pytest.raises(TargetError, match=r"^\$CC names the C compiler /nonexistent/cc, which is not there"):
            compiles(DATA / "brevitas_mlp_w3a3.onnx", "native", tmp_path / "made")
    assert not list(tmp_path.iterdir())
    (found,) = (f for f in examine() if f.name == "linker")
    assert found.ok is None and "/nonexistent/cc" in found.found and "CC" in found.mend


def test_a_graph_needs_an_output():
    with pytest.raises(UsageError, match="pass output"):
        compile_model(load(DATA / "brevitas_mlp_w3a3.onnx"))


def test_a_damaged_file_leaves_nothing(tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(MODEL.read_bytes()[:5000])
    with pytest.raises(ModelError) as caught:
        compile_model(cut)
    assert "\n" not in str(caught.value) and [p.name for p in tmp_path.iterdir()] == ["cut.onnx"]
