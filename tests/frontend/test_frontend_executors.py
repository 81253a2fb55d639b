"""Imported graphs mean what outside executors compute: layer by layer on codes, and end to end."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.frontend import load
from mpcompile.reference.interpret import codes, interpret
from tests.frontend.outside_executors import by_onnx, by_onnxruntime, by_qonnx, is_qonnx

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(p.stem for p in DATA.glob("*.onnx"))
SAMPLES = 2


def executor_of(path: Path):
    """qonnx for its own operators; ONNX Runtime for standard ones, but for INT2, which only onnx's evaluator knows."""
    return by_qonnx if is_qonnx(path) else by_onnx if path.stem == "hand_qdq_int2" else by_onnxruntime


@pytest.mark.parametrize("stem", FILES)
def test_layer_by_layer(stem):
    """Each layer fed with the executor's own codes: at least 99.99 % of the codes equal, none off by more than one
    step."""
    path = DATA / f"{stem}.onnx"
    graph, execute = load(path), executor_of(path)
    equal = total = 0
    compared = set()
    for x in np.load(path.with_suffix(".npz"))["x"][:SAMPLES]:
        theirs = execute(path, x)
        quantized = {t for n in graph.nodes for t in n.outputs if graph.types[t].quantizer and t in theirs}
        mine = interpret(graph, {graph.inputs[0]: x}, given={t: theirs[t] for t in quantized})
        for tensor in quantized:
            quantizer = graph.types[tensor].quantizer
            assert theirs[tensor].shape == mine[tensor].shape, tensor
            apart = np.abs(codes(theirs[tensor], quantizer) - codes(mine[tensor], quantizer)) // quantizer.grid.step
            assert apart.max() <= 1, f"{tensor}: {apart.max()} steps apart"
            equal, total = equal + (apart == 0).sum(), total + apart.size
        for tensor in set(mine) & set(theirs) - quantized:
            np.testing.assert_allclose(
                mine[tensor], theirs[tensor], rtol=1e-4, atol=1e-4 * np.abs(theirs[tensor]).max(), err_msg=tensor
            )
        compared |= set(mine) & set(theirs)
    assert equal >= 0.9999 * total
    written = {t for n in graph.nodes for t in n.outputs}
    assert len(compared & written) >= 0.8 * len(written)  # the comparison is not an empty one


@pytest.mark.parametrize("stem", FILES)
def test_end_to_end(stem):
    """With no values handed over in between, the outputs of samples that meet no flipped rounding are the
    executor's."""
    path = DATA / f"{stem}.onnx"
    graph, arrays = load(path), np.load(path.with_suffix(".npz"))
    execute = executor_of(path)
    for i, x in enumerate(arrays["x"][:SAMPLES]):
        mine = interpret(graph, {graph.inputs[0]: x})
        theirs = {"y": arrays["y"][i]} if "y" in arrays else execute(path, x)  # y: Brevitas's own result
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
