"""Imported graphs mean what outside executors compute: layer by layer on codes, and end to end."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.frontend import load, load_source
from mpcompile.reference.interpret import interpret
from mpcompile.witness.reading import check_reading
from tests.frontend.outside_executors import outside

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(p.stem for p in DATA.glob("*.onnx"))
SAMPLES = 2


@pytest.mark.parametrize("stem", FILES)
def test_layer_by_layer(stem):
    """Each tensor made from the executor's own: at least 99.99 % of the codes equal, none off by more than one step."""
    source = load_source(DATA / f"{stem}.onnx")
    found = check_reading(source, {source.graph.inputs[0]: np.load(DATA / f"{stem}.npz")["x"][:SAMPLES]})
    assert not found.unchecked and found.equal, found.summary
    codes = [row for row in found.rows if row.kind == "codes"]
    assert sum(row.differing for row in codes) <= 1e-4 * sum(row.elements for row in codes)
    assert found.compared >= 0.8 * found.tensors and codes  # the comparison is not an empty one


@pytest.mark.parametrize("stem", FILES)
def test_end_to_end(stem):
    """With no values handed over in between, the outputs of samples that meet no flipped rounding are the
    executor's."""
    path = DATA / f"{stem}.onnx"
    graph, arrays = load(path), np.load(path.with_suffix(".npz"))
    for i, x in enumerate(arrays["x"][:SAMPLES]):
        mine = interpret(graph, {graph.inputs[0]: x})
        theirs = {"y": arrays["y"][i]} if "y" in arrays else outside(path, x)  # y: Brevitas's own result
        for output in graph.outputs:
            assert mine[output].shape == theirs[output].shape
            np.testing.assert_allclose(mine[output], theirs[output], rtol=1e-4, atol=1e-5, err_msg=output)


@pytest.mark.parametrize("stem", [s for s in FILES if not s.startswith("hand_roundings")])
def test_no_operator_of_these_files_runs_in_float(stem):
    """Every contraction is on integers: no FloatOp, and all the weights of the file are on grids."""
    graph = load(DATA / f"{stem}.onnx")
    assert {n.op for n in graph.nodes} & {"Conv", "Dense"}
    assert "FloatOp" not in {n.op for n in graph.nodes}


def test_files_stay_small():
    assert FILES and all(p.stat().st_size < 110_000 for p in DATA.iterdir() if p.is_file())
