"""`mpcompile quantize`: bad input is one line and its exit code, and what was there stays; what it writes for machines."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from mpcompile.cli import main
from tests.patience import PATIENCE
from tests.ptq.nets import export, made, samples

USAGE, MODEL, INTERRUPTED = 2, 3, 130


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with float.onnx, of one input x [n, 20], and x.npz."""
    folder = tmp_path_factory.mktemp("quantize")
    export(made("perceptron"), folder / "float.onnx")
    np.savez(folder / "x.npz", x=samples("perceptron"))
    return folder


@pytest.fixture
def there(source, tmp_path, monkeypatch):
    """In an empty folder; q.onnx is there already, of somebody's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.onnx").write_bytes(b"mine")
    return tmp_path


def run(source, *more, calibration="x.npz", bits=("--bits", "w8a8")) -> int:
    given = os.path.join(source, calibration)
    return main(["quantize", f"{source}/float.onnx", "--calibration", given, "-o", "q.onnx", *bits, *map(str, more)])


def refused(capsys, there, code, told, *argv, **how):
    assert run(*argv, **how) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("mpcompile: ") and told in lines[0], lines
    assert (there / "q.onnx").read_bytes() == b"mine" and os.listdir(there) == ["q.onnx"]


@pytest.mark.parametrize(
    "name, arrays, told",
    [
        (
            "shape.npz",
            dict(x=np.zeros((4, 21), np.float32)),
            "input x has the shape 4×21; samples of 20, one or several",
        ),
        ("type.npz", dict(x=np.zeros((4, 20), np.int64)), "input x is int64; float32 would be accepted"),
        ("names.npz", dict(a=np.zeros((4, 20)), b=np.zeros(3)), "has no array for the model's input x: it has a, b"),
        ("empty.npz", dict(x=np.zeros((0, 20), np.float32)), "holds no samples; 1 or more would be accepted"),
        (
            "nan.npz",
            dict(x=np.full((4, 20), np.nan, np.float32)),
            "input x holds nan; finite numbers would be accepted",
        ),
    ],
)
def test_arrays_that_do_not_fit(capsys, source, there, name, arrays, told):
    np.savez(source / name, **arrays)
    refused(capsys, there, USAGE, told, source, calibration=name)


def test_no_calibration_inputs(capsys, source, there, tmp_path_factory):
    refused(capsys, there, USAGE, "there is no file or folder", source, calibration="none.npz")
    empty = tmp_path_factory.mktemp("empty")
    refused(capsys, there, USAGE, "it holds no .npz or .npy file", source, calibration=empty)
    (source / "text.npz").write_text("hello")
    refused(capsys, there, USAGE, "text.npz is no file of plain arrays", source, calibration="text.npz")
    np.save(source / "pickle.npy", np.array([{}]), allow_pickle=True)
    refused(capsys, there, USAGE, "pickled objects, which are not read", source, calibration="pickle.npy")


@pytest.mark.parametrize(
    "bits, told",
    [
        ((), "neither bits nor a budget"),
        (("--bits", "w4a4", "--size", "2 KiB"), "bits and a budget"),
        (("--bits", "w9a4"), "bits 'w9a4' are not like w2a4"),
        (("--size", "2 ms"), "size '2 ms' is not like"),
        (("--latency", "2 KiB"), "latency '2 KiB' is not like"),
        (("--mean-bits", "9"), "a mean of 9.0 bits"),
        (("--bits", "w4a4", "--keep", "none=8"), "keep none: the model has no layer of that name; it has /layers"),
        (("--bits", "w4a4", "--keep", "*=9"), "keep at '9'"),
        (("--bits", "w4a4", "--keep", "8"), "--keep 8: the name of a layer and its bits"),
        (("--bits", "w4a4", "--keep", "*=float"), "no layer that can be quantized"),
        (("--bits", "w4a4", "--percentile", "20"), "a percentile of 20"),
        (("--bits", "w4a4", "--samples", "0"), "samples must be 1 or more"),
        (("--bits", "w4a4", "--json", "q.onnx"), "cannot write q.onnx: it is already the command's output"),
        (("--size", "1 KiB"), "no choice of bits takes 1 KiB or less: the least takes"),
        (("--latency", "0.01 us", "--target", "rpi4b"), "no choice of bits takes 0.01 us or less: the least takes"),
        (("--latency", "1 ms", "--table", "none.json"), "cannot read none.json"),
    ],
)
def test_options_that_do_not_fit(capsys, source, there, bits, told):
    refused(capsys, there, USAGE, told, source, bits=bits)


def test_models_that_do_not_fit(capsys, source, there, monkeypatch):
    def model(*nodes, kind=1, opset=17, shape=("n", 20), initializers=()):
        ports = [onnx.helper.make_tensor_value_info(n, kind, list(shape)) for n in "xy"]
        graph = onnx.helper.make_graph(list(nodes), "g", ports[:1], ports[1:], list(initializers))
        made = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", opset)])
        (source / "other").mkdir(exist_ok=True)
        onnx.save(made, source / "other" / "float.onnx")

    def told(code, words):
        refused(capsys, there, code, words, source / "other", calibration=source / "x.npz")

    relu = onnx.helper.make_node("Relu", ["x"], ["y"])
    model(relu)
    told(USAGE, "no layer that can be quantized")
    model(relu, opset=99)
    told(MODEL, "is of ONNX opset 99")
    model(relu, kind=10)
    told(MODEL, "x is FLOAT16; a model in FLOAT would be accepted")
    model(relu, shape=("n", "m"))
    told(MODEL, "--shape x=1xC would fix it")
    model(onnx.helper.make_node("Conjure", ["x"], ["y"], name="it"))
    told(MODEL, "node it (Conjure)")
    (source / "other" / "float.onnx").write_text("hello")
    told(MODEL, "is no ONNX file")


def test_a_folder_of_samples(capsys, source, there):
    """One sample a file, or several, as .npy and .npz: the same as all of them in one file."""
    x = samples("perceptron")
    folder = source / "folder"
    folder.mkdir(exist_ok=True)
    np.save(folder / "0.npy", x[0])
    np.savez(folder / "1.npz", x=x[1:20])
    np.save(folder / "2.npy", x[20:].astype(np.float64))
    (folder / "README").write_text("not read")
    assert run(source) == 0
    whole = (there / "q.onnx").read_bytes()
    assert run(source, calibration="folder") == 0 and (there / "q.onnx").read_bytes() == whole != b"mine"
    capsys.readouterr()


def test_what_it_tells(capsys, source, there):
    assert run(source, "--json", "-", bits=("--bitops", "w4a4", "--keep", "*Gemm=w8a8")) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["path"] == "q.onnx" and [layer["bits"] for layer in told["layers"]] == ["w8a8"] * 3
    assert told["costs"][0]["kind"] == "bitops" and told["same_class"] > 0.9 and told["float_operators"] == {}
    assert "layers.0/Gemm" in err and "the same class for" in err


def test_an_interrupt_leaves_what_was_there(source, there):
    """In the middle of the work, by a signal that it sends itself there."""
    code = (
        "import os, signal, sys\n"
        "from mpcompile.cli import main\n"
        "from mpcompile.ptq import sensitivity\n"
        "def interrupted(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "sensitivity.output_loss = interrupted\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    argv = ["quantize", f"{source}/float.onnx", "--calibration", f"{source}/x.npz", "-o", "q.onnx", "--size", "w4a4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=PATIENCE, cwd=there
    )
    assert done.returncode == INTERRUPTED and done.stderr == "mpcompile: interrupted\n", done.stderr
    assert (there / "q.onnx").read_bytes() == b"mine" and os.listdir(there) == ["q.onnx"]
