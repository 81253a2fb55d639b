"""Every verb on a real model, as a user types it; and what is said of bundles and arrays that do not fit."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import mpcompile as mp
from mpcompile.cli import main
from mpcompile.errors import UsageError
from tests.patience import PATIENCE

DATA = Path(__file__).resolve().parents[1] / "data"
MODEL = "brevitas_cnn_w1a1"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with model.onnx and the bundle that `mpcompile compile` made of it."""
    folder = tmp_path_factory.mktemp("verbs")
    shutil.copy(DATA / f"{MODEL}.onnx", folder / "model.onnx")
    shutil.copy(DATA / f"{MODEL}.npz", folder / "x.npz")
    words = ["compile", str(folder / "model.onnx"), "--target", "x86-64-v2", "--require-quantized"]  # it is, wholly
    assert main([*words, "--json", str(folder / "compile.json")]) == 0
    return folder


@pytest.fixture
def here(compiled, tmp_path, monkeypatch):
    for name in ("model.onnx", "model.mpc", "x.npz"):
        shutil.copy(compiled / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys):
    found = capsys.readouterr()
    return found.out, found.err.splitlines()


def test_compile_leaves_the_bundle_beside_the_model(compiled):
    assert sorted(os.listdir(compiled)) == ["compile.json", "model.mpc", "model.onnx", "x.npz"]
    told = json.loads((compiled / "compile.json").read_text())
    assert told["target"]["name"] == "x86-64-v2" and told["bytes"] == (compiled / "model.mpc").stat().st_size
    families = {part["family"] for layer in told["variants"][0]["layers"] for part in layer.get("parts", ())}
    assert families and families <= {"popcount", "dot", "depthwise"}


def test_run(here, capsys):
    assert (
        main(["run", "model.mpc", "--input", "x.npz", "--output", "y.npz", "--threads", "1", "--json", "run.json"]) == 0
    )
    x = np.load("x.npz")["x"]
    with mp.open_bundle("model.mpc", threads=1) as bundle:
        np.testing.assert_array_equal(np.load("y.npz")["y"], bundle.run(x))
    assert json.loads(Path("run.json").read_text())["shapes"] == {"y": [len(x), 10]}
    assert said(capsys)[1] == []


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"x": np.zeros((3, 16, 17), np.float32)}, "input x must be (3, 16, 16) or (N, 3, 16, 16), got (3, 16, 17)"),
        ({"a": np.zeros((3, 16, 16)), "b": np.zeros(3)}, "x.npz has no array x; it has a, b"),
        ({"x": np.array(["text"])}, "input x must hold real numbers"),
        ({}, "x.npz has no array x; it has none"),
    ],
)
def test_run_on_arrays_that_do_not_fit(here, capsys, arrays, told):
    np.savez("x.npz", **arrays)
    assert main(["run", "model.mpc", "--input", "x.npz", "--output", "y.npz"]) == 2
    assert told in said(capsys)[1][0] and not Path("y.npz").exists()


def test_verify(here, capsys):
    assert main(["verify", "model.onnx", "model.mpc", "--threads", "1", "--json", "v.json"]) == 0
    assert "equal" in said(capsys)[0] and json.loads(Path("v.json").read_text())["equal"] is True
    assert main(["verify", "model.onnx", "model.mpc", "--threads", "1", "--inputs", "x.npz"]) == 0


def test_verify_finds_a_difference(here, capsys):
    """A bundle whose weights are other ones ends with 1 and names the first buffer that differs."""
    from mpcompile.runtime import archive

    contents = archive.read_archive("model.mpc")
    (variant,) = contents.manifest["variants"]
    kernel = next(
        arg for call in variant["plan"]["calls"] for arg in call["args"] if arg[0] == "weights" and arg[2] == "int8"
    )
    (name,) = variant["weights"]
    weights = bytearray(contents.members[name])
    for i in range(kernel[1], kernel[1] + 100):
        weights[i] ^= 255
    manifest = {k: v for k, v in contents.manifest.items() if k in ("target", "model", "variants")}
    archive.write_archive("model.mpc", manifest, {**contents.members, name: bytes(weights)})
    assert main(["verify", "model.onnx", "model.mpc", "--threads", "1", "--json", "v.json"]) == 1
    out, err = said(capsys)
    assert (
        "DIFFERENT: bundle against reference: first difference: " in out
        and "equal: read as qonnx computes it: " in out
        and not err
    )
    told = json.loads(Path("v.json").read_text())
    assert told["equal"] is False and told["failed"] == ["bundle"] and told["reading"]["equal"] is True


def test_verify_finds_a_wrong_reading(here, capsys, monkeypatch):
    """Compiled from what was read wrongly, a bundle equals the reference of the same reading; only ONNX Runtime knows."""
    from mpcompile import frontend

    def wrongly(path, shapes):
        source = right(path, shapes)
        next(n for n in source.graph.nodes if n.op == "Conv").weight.q[0, 0, 0, 0] *= -1
        return source

    right = frontend.load_source
    monkeypatch.setattr(frontend, "load_source", wrongly)
    assert main(["compile", "model.onnx", "-o", "wrong.mpc", "--target", "x86-64-v2"]) == 0
    capsys.readouterr()
    words = ["verify", "model.onnx", "wrong.mpc", "--threads", "1", "--json", "v.json"]
    assert main(words) == 1
    out, err = said(capsys)
    assert "\nequal: " in out and "\nDIFFERENT: reading against qonnx: first difference: node " in out and not err
    told = json.loads(Path("v.json").read_text())
    assert told["failed"] == ["reading"] and told["equal"] is told["reading"]["equal"] is False
    assert main([*words, "--witness", "none"]) == 0
    assert "not checked against an outside executor: none was asked for" in said(capsys)[0]
    assert main([*words, "--witness", "onnxruntime"]) == 3
    assert "model.onnx: ONNX Runtime does not take it: " in said(capsys)[1][0]


def test_verify_offers_each_witness_there_is():
    from mpcompile.cli.command_line import parser
    from mpcompile.witness.executors import AUTO, EXECUTORS, NONE

    (verbs,) = (a for a in parser()._actions if a.dest == "verb")
    (witness,) = (a for a in verbs.choices["verify"]._actions if a.dest == "witness")
    assert tuple(witness.choices) == (AUTO, *EXECUTORS, NONE)


def test_verify_says_both_in_python(here):
    found = mp.verify("model.onnx", "model.mpc", np.load("x.npz")["x"], threads=1)
    assert found.equal and not found.failed and found.reading.against == "qonnx" and found.reading.rows
    assert found.summary == f"{found.bundle.summary}; {found.reading.summary}"
    graph = mp.verify(mp.load("model.onnx"), "model.mpc", np.load("x.npz")["x"], threads=1)
    assert graph.equal and graph.reading.summary == "not checked against an outside executor: it is no file"


def test_verify_against_another_model(here, capsys):
    assert main(["verify", str(DATA / "brevitas_cnn_w2a2.onnx"), "model.mpc"]) == 3
    assert "another model" in said(capsys)[1][0]


def test_operators_in_float_are_listed_and_refused(tmp_path, monkeypatch, capsys):
    """By compile and inspect, of model and bundle, with the reason; nothing is written where they are refused."""
    from tests.data.hand_made import Builder

    monkeypatch.chdir(tmp_path)
    b = Builder("net", 13, (4, 6, 6))
    scale, zero = b.constant(np.float32(0.05)), b.constant(3, np.int8)
    x = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", scale, zero), scale, zero)
    w = b.add("DequantizeLinear", b.constant(b.rng.integers(-128, 128, (5, 4, 3, 3)), np.int8), np.float32(0.02))
    y = b.add("Softmax", b.add("Conv", b.add("Conv", x, w), b.constant(b.rng.standard_normal((3, 5, 1, 1)))), axis=1)
    onnx.save(b.model(y), "m.onnx")
    words = ["compile", "m.onnx", "--target", "x86-64-v2"]
    assert main([*words, "--require-quantized"]) == 3
    out, err = said(capsys)
    assert len(err) == 1 and "(Conv) would run in float: its weights are not quantized, and 1 other would; " in err[0]
    assert main([*words, "--require-quantized", "--format", "c", "-o", "c"]) == 3 and not Path("m.mpc").exists()
    assert said(capsys)[1] == err and not Path("c").exists()
    for verb in (words, ["inspect", "m.onnx"], ["inspect", "m.mpc"]):
        assert main([*verb, "--json", "j.json"]) == 0
        out, _ = said(capsys)
        assert re.search(r"runs in float +operator +because", out)
        assert re.search(r"Conv +its weights are not quantized *\n", out)
        assert re.search(r"Softmax +it has no form on integers *\n", out)
        told = json.loads(Path("j.json").read_text())
        rows = told["layers"] if "layers" in told else told["variants"][0]["layers"]
        assert [row["op"] for row in rows if row.get("reason")] == ["Conv", "Softmax"]


def test_bench_beside_onnxruntime(here, capsys):
    other = str(DATA / "brevitas_residual_qcdq.onnx")
    assert main(["bench", "model.mpc", "--vs-onnx", other, "--threads", "1", "--rounds", "2", "--json", "b.json"]) == 0
    told = json.loads(Path("b.json").read_text())
    assert set(told["timings"]) == {"model.mpc", "ONNX Runtime, brevitas_residual_qcdq.onnx"} and told["threads"] == 1
    assert all(ratio > 0 for ratio in told["ratios"].values()) and len(told["ratios"]) == 1
    assert main(["bench", "model.mpc", "--vs-onnx", "none.onnx"]) == 2
    assert "none.onnx: no such file" in said(capsys)[1][-1]
    assert main(["bench", "net_c", "--ssh", "board"]) == 2
    assert "net_c: no such file or folder" in said(capsys)[1][-1]
    assert main(["bench", "model.mpc", "--vs-onnx", "model.mpc"]) == 2
    assert "--vs-onnx model.mpc: a file whose name ends in .onnx" in said(capsys)[1][-1]


def test_bench_beside_two_files_of_one_name(here):
    """As a search's points are: each is timed, by its path."""
    words = ["bench", "model.mpc", "--threads", "1", "--rounds", "2", "--json", "b.json"]
    for folder in ("a", "b"):
        Path(folder).mkdir()
        shutil.copyfile(DATA / "ort_qdq_int8.onnx", f"{folder}/model.onnx")
        words += ["--vs-onnx", f"{folder}/model.onnx"]
    assert main(words) == 0
    timed = set(json.loads(Path("b.json").read_text())["timings"])
    assert timed == {"model.mpc", "ONNX Runtime, a/model.onnx", "ONNX Runtime, b/model.onnx"}


def test_inspect_bundle_and_model(here, capsys):
    for file in ("model.mpc", "model.onnx"):
        assert main(["inspect", file, "--target", "zen5", "--json", "i.json"]) == 0
        told = json.loads(Path("i.json").read_text())
        assert told["inputs"] == [{"name": "x", "shape": [3, 16, 16], "dtype": "float32"}]
        layers = told["layers"] if file == "model.onnx" else told["variants"][0]["layers"]
        assert sum(layer.get("macs", 0) for layer in layers) > 1e6
        assert "24→33 3×3" in (shown := said(capsys)[0]) and "1 ±1" in shown


def test_profile(here, capsys):
    assert main(["profile", "model.onnx", "--threads", "1", "--rounds", "1", "-o", "p.json"]) == 0
    told = json.loads(Path("p.json").read_text())
    assert len(told["layers"]) == 6 and all(layer["time"]["seconds"] > 0 for layer in told["layers"])
    assert main(["profile", "model.onnx", "--bits", "w9a1", "-o", "p.json"]) == 2
    assert "--bits 'w9a1'" in said(capsys)[1][-1]
    assert sorted(os.listdir(here)) == ["model.mpc", "model.onnx", "p.json", "x.npz"]


@pytest.mark.parametrize(
    "verb",
    [
        ["run", "model.mpc", "--input", "x.npz", "--output", "y.npz"],
        ["bench", "model.mpc"],
        ["inspect", "model.mpc"],
        ["verify", "model.onnx", "model.mpc"],
    ],
)
def test_a_cut_bundle(here, capsys, verb):
    whole = Path("model.mpc").read_bytes()
    Path("model.mpc").write_bytes(whole[: len(whole) // 2])
    assert main(verb) == 3
    _out, err = said(capsys)
    assert len(err) == 1 and "model.mpc" in err[0] and not Path("y.npz").exists()


def test_a_bundle_for_another_cpu(here, capsys, monkeypatch):
    monkeypatch.setattr("mpcompile.targets.cpu.features", lambda: frozenset({"sse2"}))
    assert main(["run", "model.mpc", "--input", "x.npz", "--output", "y.npz"]) == 4
    err = said(capsys)[1]
    assert len(err) == 1 and "needs" in err[0] and "sse4_2" in err[0] and not Path("y.npz").exists()


@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_a_cut_model(here, capsys, cut):
    """Refused before anything is written; a cut file is no model, or one that lacks what the rest would say."""
    whole = Path("model.onnx").read_bytes()
    Path("bad.onnx").write_bytes(whole[: int(len(whole) * cut) if isinstance(cut, float) else cut])
    assert main(["compile", "bad.onnx"]) == 3
    err = said(capsys)[1]
    assert len(err) == 1 and "bad" in err[0] and not Path("bad.mpc").exists()


def test_a_failing_compile_leaves_nothing(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CC", "")
    monkeypatch.setattr("mpcompile.compiler.linker.importlib.util.find_spec", lambda name: None)
    assert main(["compile", "model.onnx", "-o", "new.mpc"]) == 4
    err = said(capsys)[1]
    assert len(err) == 1 and "C compiler" in err[0] and "ziglang" in err[0]
    assert sorted(os.listdir(here)) == ["model.mpc", "model.onnx", "x.npz"]


def test_compiling_without_the_compiler(here):
    """As on a board: TVM's runtime alone. Running still works."""
    env = {**os.environ, "TVM_USE_RUNTIME_LIB": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mpcompile", "compile", "model.onnx", "-o", "new.mpc"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 5 and len(done.stderr.splitlines()) == 1 and "unset TVM_USE_RUNTIME_LIB" in done.stderr
    run = [
        sys.executable,
        "-m",
        "mpcompile",
        "run",
        "model.mpc",
        "--input",
        "x.npz",
        "--output",
        "y.npz",
        "--threads",
        "1",
    ]
    assert subprocess.run(run, env=env, capture_output=True, timeout=PATIENCE).returncode == 0
    assert sorted(os.listdir(here)) == ["model.mpc", "model.onnx", "x.npz", "y.npz"]


def test_dump_ir(here):
    assert main(["compile", "model.onnx", "-o", "new.mpc", "--dump-ir", "ir"]) == 0
    names = sorted(os.listdir("ir"))
    assert names[0].startswith("01-") and len(names) >= 6 and all(os.path.getsize(f"ir/{n}") for n in names)


def test_a_full_disk_names_the_file(here, capsys):
    """The limit of a file's size stands for the disk's."""
    from mpcompile.api.export_c import _put

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        assert main(["compile", "model.onnx", "-o", "new.mpc", "--dump-ir", "ir"]) == 2
        with pytest.raises(UsageError, match=r"cannot write .*ir/model\.onnx: File too large"):
            _put(here, here / "ir", ["model.onnx"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said(capsys)[1] == [f"mpcompile: cannot write {here}/ir/01-import.txt: File too large"]
    assert sorted(os.listdir(here)) == ["ir", "model.mpc", "model.onnx", "x.npz"] and not os.listdir("ir")


def test_doctor(capsys, tmp_path):
    file = tmp_path / "d.json"
    assert main(["doctor", "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    found = {f["name"]: f for f in told["findings"]}
    assert told["ok"] and found["TVM loads"]["ok"] and found["apache-tvm-ffi"]["found"] == "0.1.14.post1"
    assert "Ready" in said(capsys)[0]


def test_doctor_names_what_mends(capsys, monkeypatch):
    from importlib import metadata

    from mpcompile.cli import doctor

    real = metadata.version

    def version(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError
        return "0.1.15.post2" if name == "apache-tvm-ffi" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert main(["doctor"]) == 4
    out, err = said(capsys)
    assert (
        "0.1.15.post2, and it must be 0.1.14.post1" in out
        and "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14" in out
    )
    assert "absent (comparisons with ONNX Runtime)" in out and err == [
        "mpcompile: this machine lacks what mpcompile needs: apache-tvm-ffi"
    ]
