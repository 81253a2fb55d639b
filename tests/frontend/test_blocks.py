"""Blocks of pixels and channels, and channel shuffles: against other executors, and as layers alone."""

import numpy as np
import onnx
import pytest

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from tests.data.hand_made import Builder
from tests.frontend.as_layers import layers, terms
from tests.frontend.test_frontend_operators import check, quantized, weights
from tests.frontend.test_functions_and_views import requantized

F32 = np.float32


BLOCKS = {
    "depth to space": ((18, 4, 5), dict(op="DepthToSpace", blocksize=3)),
    "pixel shuffle": ((8, 5, 6), dict(op="DepthToSpace", blocksize=2, mode="CRD")),
    "space to depth": ((3, 6, 8), dict(op="SpaceToDepth", blocksize=2)),
    "blocks of one": ((4, 3, 3), dict(op="SpaceToDepth", blocksize=1)),
}


@pytest.mark.parametrize("between", ["codes", "float"])
@pytest.mark.parametrize("form", BLOCKS)
def test_blocks_move_on_codes(tmp_path, form, between):
    """Also where the quantizer is behind them: it works in the layer in front."""
    shape, how = BLOCKS[form]
    b = Builder("blocks", 17, shape)
    op, how = how["op"], {k: v for k, v in how.items() if k != "op"}
    y = b.add("Relu", b.add("Conv", quantized(b, "x"), weights(b, (shape[0], shape[0], 3, 3)), pads=[1] * 4))
    y = requantized(b, y, 0.03, 4) if between == "codes" else y
    y = requantized(b, b.add(op, y, **how), 0.03, 4)
    size = how["blocksize"] ** 2
    channels = shape[0] // size if op == "DepthToSpace" else shape[0] * size
    b.add("Conv", y, weights(b, (3, channels, 2, 2)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", "Clip", "Reshape", "Transpose"})
    moves = [] if how["blocksize"] == 1 else ["RearrangeTerm"]
    assert terms(layers(graph)) == ["ViewTerm", "ContractTerm", *moves, "ContractTerm"]


def test_blocks_that_do_not_fit_are_refused(tmp_path):
    b = Builder("misfit", 17, (6, 4, 4))
    b.add("DepthToSpace", quantized(b, "x"), blocksize=2, output="y")
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"node node_y \(DepthToSpace\): blocks of 2 do not fit \[6, 4, 4\]; a whole"):
        load(tmp_path / "m.onnx")


def shuffled(b: Builder, x: str, groups: int, c: int, h: int, w: int) -> str:
    x = b.add("Reshape", x, b.constant([1, groups, c // groups, h, w], np.int64))
    x = b.add("Transpose", x, perm=[0, 2, 1, 3, 4])
    return b.add("Reshape", x, b.constant([1, c, h, w], np.int64))


@pytest.mark.parametrize("reader", ["depthwise", "pointwise"])
def test_a_shuffle_moves_codes_or_weights(tmp_path, reader):
    """In front of a convolution that reads all channels its weights are shuffled, and nothing moves."""
    b = Builder("shuffle", 17, (12, 4, 5))
    y = requantized(b, b.add("Conv", quantized(b, "x"), weights(b, (12, 4, 1, 1)), group=3), 0.05, 128)
    y = shuffled(b, y, 3, 12, 4, 5)
    kernel, how = ((12, 1, 3, 3), dict(group=12, pads=[1] * 4)) if reader == "depthwise" else ((7, 12, 2, 2), {})
    b.add("Conv", y, weights(b, kernel), output="y", **how)
    found = layers(check(tmp_path, b, "y", ops={"Quantize", "Conv", "Reshape", "Transpose"}))
    assert ("RearrangeTerm" in terms(found)) == (reader == "depthwise")


def test_a_shuffle_with_a_norm_behind_it(tmp_path):
    """Its constants are those of the channels that come there."""
    b = Builder("norm", 17, (12, 4, 5))
    y = shuffled(b, b.add("Conv", quantized(b, "x"), weights(b, (12, 12, 1, 1))), 4, 12, 4, 5)
    y = requantized(b, b.add("Relu", b.norm(y, 12)), 0.03)
    b.add("Conv", y, weights(b, (12, 1, 3, 3)), output="y", group=12)
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", "Reshape", "Transpose", "Affine", "Clip"})
    found = layers(graph)
    assert terms(found) == ["ViewTerm", "ContractTerm", "RearrangeTerm", "ContractTerm"]
    assert found[2].inputs == found[1].outputs and graph.types["x"].quantizer is None


def test_what_is_flattened_channels_last_moves_weights(tmp_path):
    b = Builder("nhwc", 17, (5, 4, 3))
    y = requantized(b, b.add("Conv", quantized(b, "x"), weights(b, (6, 5, 1, 1))), 0.05, 128)
    y = b.add("Flatten", b.add("Transpose", y, perm=[0, 2, 3, 1]))
    b.add("Gemm", y, weights(b, (72, 5), 1), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", "Transpose", "Reshape", "Dense"})
    assert terms(layers(graph)) == ["ViewTerm", "ContractTerm", "ContractTerm"]
