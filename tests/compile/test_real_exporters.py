"""Files that other tools wrote (`make exporters`): read as an outside executor computes them, on integers as far as they
are quantized, and exact; against the outputs of the tool's own framework, which are kept beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.float_operators import float_operators
from mpcompile.api.verify import verify
from mpcompile.frontend import load_source
from mpcompile.runtime.bundle import open_bundle
from mpcompile.witness.reading import check_reading
from tests.exporters.kept import as_kept

FOLDER = Path(__file__).parents[1] / "data" / "exporters"
FILES = json.loads((FOLDER / "exporters.json").read_text())
IN_FLOAT = {
    "nncf_onnx_modern": {"Conv", "Sigmoid"},
    "ort_dynamic": {"DynamicQuantizeLinear", "MatMulInteger", "Mul"},
    "ort_qdq_uint16": {"Gemm", "QuantizeLinear of 16 bits"},
}
"""File → operators that have neither a quantizer of 8 bits nor a layer in front."""
STEP = 1 / 127
"""Of an output's largest value: a step of 8 bits. So far apart may outputs be where a rounding went the other way."""


def arrays(name: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The inputs by name, and the outputs in the file's order."""
    with np.load(FOLDER / f"{name}.npz") as kept:
        inputs = {n.removeprefix("in_"): kept[n] for n in kept if n.startswith("in_")}
        return inputs, [kept[f"out_{i}"] for i in range(len(kept) - len(inputs))]


def test_every_file_is_listed_and_of_at_least_eight_tools():
    assert {p.stem for p in FOLDER.glob("*.onnx")} == set(FILES) == {p.stem for p in FOLDER.glob("*.npz")}
    assert len({told["package"] for told in FILES.values()}) >= 8


@pytest.mark.parametrize("name", FILES)
def test_it_is_read_as_others_compute_it(name):
    path = FOLDER / f"{name}.onnx"
    source = load_source(path)
    found = check_reading(source, arrays(name)[0])
    assert not found.unchecked and found.equal, found.summary
    assert found.compared >= 0.3 * found.tensors
    floats = {n.op_type: n.reason for n in float_operators(source.graph)}
    assert set(floats) == IN_FLOAT.get(name, set()), floats


@pytest.mark.parametrize("name", FILES)
def test_its_bundle_gives_what_its_own_framework_gives(name, tmp_path):
    inputs, outputs = arrays(name)
    path = FOLDER / f"{name}.onnx"
    bundle = compile_model(path, output=tmp_path / "m.mpc")
    report = verify(path, bundle, inputs, threads=1, witness="none")
    assert report.equal, report.summary
    with open_bundle(bundle, 1) as opened:
        found = opened.run(inputs)
    given = list(found.values()) if isinstance(found, dict) else [found]
    for mine, theirs in zip(given, outputs, strict=True):
        apart = np.abs(mine.astype(np.float64) - theirs) / np.abs(theirs).max()
        assert mine.shape == theirs.shape and apart.max() <= STEP, apart.max()
        assert np.quantile(apart, 0.25) <= 1e-5  # there are samples that meet no rounding that goes the other way


def test_files_are_small_and_tell_nothing_of_the_machine_that_made_them():
    for path in FOLDER.iterdir():
        assert path.stat().st_size < 110_000
    for path in FOLDER.glob("*.onnx"):
        content = path.read_bytes()
        assert not any(word in content for word in (b"/work", b"/tmp", b"/home", b"/root", b"site-packages"))
        assert not onnx.load(path).metadata_props


def test_a_kept_file_is_told_from_one_with_another_code():
    name = "ort_qdq_plain"
    model, kept = onnx.load(FOLDER / f"{name}.onnx"), dict(np.load(FOLDER / f"{name}.npz"))
    assert as_kept(name, model, kept)
    near = {n: a * np.float32(1 + 1e-7) if n == "out_0" else a for n, a in kept.items()}
    far = {n: a * np.float32(1.001) if n == "out_0" else a for n, a in kept.items()}
    assert as_kept(name, model, near) and not as_kept(name, model, far)
    codes = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims)
    other = onnx.numpy_helper.to_array(codes).copy()
    other.flat[0] ^= 1
    codes.CopyFrom(onnx.numpy_helper.from_array(other, codes.name))
    assert not as_kept(name, model, kept)
