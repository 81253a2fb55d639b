"""The command line and the example: through Relax, and modules in JSON."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm

import mpcompile as mp
from mpcompile.cli import main
from mpcompile.relax import BitSerialize
from mpcompile.runtime.archive import read_manifest
from mpcompile.tvm_frontend.build import build_region
from mpcompile.tvm_frontend.relax import bit_serialize
from tests.patience import PATIENCE
from tests.relax.modules import Maker, op, run
from tests.relax.test_pass import integers, layer

ROOT = Path(__file__).parents[2]


def test_a_module_in_json_becomes_a_bundle(tmp_path, capsys):
    mod = Maker((1, 4, 6, 6)).module(layer)
    (tmp_path / "module.json").write_text(tvm.ir.save_json(mod))
    assert main(["compile", str(tmp_path / "module.json")]) == 0
    x = integers((1, 4, 6, 6))
    with mp.open_bundle(tmp_path / "module.mpc", threads=1) as bundle:
        np.testing.assert_array_equal(bundle.run(x), run(BitSerialize(say=None)(mod), x)[0])


def test_through_relax(tmp_path, capsys):
    path = ROOT / "tests" / "data" / "ort_qdq_uint8.onnx"
    assert main(["compile", str(path), "--ir", "relax", "-o", str(tmp_path / "net.so")]) == 0
    said = capsys.readouterr().out
    assert "mpcompile.bitserial_conv2d" in said and (tmp_path / "net.so").exists()


def refused(capsys, *arguments) -> tuple[int, str]:
    code = main([*map(str, arguments)])
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    return code, said


def test_what_is_refused(tmp_path, capsys, monkeypatch):
    module = tmp_path / "module.json"
    for text, part in (("{", "is no JSON"), ("[]", "is no module that tvm.ir.save_json wrote")):
        module.write_text(text)
        code, said = refused(capsys, "compile", module)
        assert code == 3 and part in said
    mod = Maker((1, 4, 6, 6)).module(lambda m, x: m.emit(op.cumsum(layer(m, x), axis=2)))
    module.write_text(tvm.ir.save_json(mod))
    code, said = refused(capsys, "compile", module)
    assert code == 3 and "(cumsum)" in said
    model = ROOT / "tests" / "data" / "ort_qdq_uint8.onnx"
    monkeypatch.setenv("MPCOMPILE_RELAY_PYTHON", "/no/such/python")
    code, said = refused(capsys, "compile", model, "--ir", "relay", "-o", tmp_path / "net.so")
    assert code == 5 and "/no/such/python" in said
    code, said = refused(capsys, "compile", model, "--params", module)
    assert code == 2 and "--params is of a module" in said
    assert {p.name for p in tmp_path.iterdir()} == {"module.json"}


@pytest.mark.long
def test_records_of_a_module_serve_its_bundle_and_its_regions(tmp_path, monkeypatch):
    """Tuned for real: the layers that a bundle takes records for are those that BitSerialize takes them for."""
    mod, records = Maker((1, 4, 6, 6)).module(layer), str(tmp_path / "records")
    (tmp_path / "module.json").write_text(tvm.ir.save_json(mod))
    module, bundle = str(tmp_path / "module.json"), str(tmp_path / "module.mpc")
    assert main(["tune", module, "--trials", "2", "-o", records]) == 0
    assert main(["compile", module, "--records", records, "-o", bundle]) == 0
    rows = []

    def listened(*words, **options):
        made = build_region(*words, **options)
        rows.extend(made.layers)
        return made

    monkeypatch.setattr(bit_serialize, "build_region", listened)
    BitSerialize(records=records, say=None)(mod)
    wanted = [row["tile_source"] for row in read_manifest(bundle)["variants"][0]["layers"]]
    assert [row["tile_source"] for row in rows] == wanted
    assert "record" in [source["from"] for source in wanted]


@pytest.mark.long
def test_the_example(tmp_path):
    model = ROOT / "tests" / "data" / "brevitas_cnn_w2a2.onnx"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "relax" / "onnx_file.py", model, "-o", tmp_path / "net.so"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "mpcompile_main_0" in done.stdout and "µs" in done.stdout
