"""Files whose layers move what they read or write, compiled: rows of a sequence, blocks of pixels, transposed convolutions,
padding. Odd sizes, zero points, a scale for each output channel; every byte is the reference's, the file read as others
read it."""

import numpy as np
import onnx
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.frontend import load
from mpcompile.ir.graph import FloatOp
from tests.data.hand_made import Builder
from tests.frontend.test_frontend_operators import quantized, weights
from tests.frontend.test_functions_and_views import requantized


def perceptron(b: Builder) -> None:
    """Normalized rows in, a residual add, rows out for what runs in float."""
    x = b.add("LayerNormalization", "x", np.ones(21), np.zeros(21), axis=-1)
    y = b.add("Add", b.add("MatMul", quantized(b, x), weights(b, (21, 37), 1)), b.rng.standard_normal(37))
    y = requantized(b, b.add("Relu", y), 0.03)
    y = b.add("Add", b.add("MatMul", y, weights(b, (37, 21), 1)), b.rng.standard_normal(21))
    b.add("Softmax", b.add("Add", requantized(b, y, 0.1, 117), x), axis=-1, output="y")


def flattened(b: Builder) -> None:
    """As ONNX Runtime's quantizer writes a product and an Add over a sequence."""
    x = b.add("Reshape", requantized(b, "x", 0.03, 117), b.constant([7, 21], np.int64))
    y = b.add("Gemm", x, weights(b, (21, 18), 1), b.rng.standard_normal(18))
    y = b.add("Reshape", requantized(b, y, 0.1, 121), b.constant([1, 7, 18], np.int64))
    b.add("Softmax", y, axis=1, output="y")


def channels_last_map(b: Builder) -> None:
    y = b.add("MatMul", quantized(b, "x"), weights(b, (11, 13), 1))
    b.add("MatMul", requantized(b, b.add("Relu", y), 0.05), weights(b, (13, 19), 1), output="y")


def super_resolution(b: Builder) -> None:
    y = b.add("Relu", b.add("Conv", quantized(b, "x"), weights(b, (27, 3, 3, 3)), pads=[1] * 4))
    y = b.add("DepthToSpace", requantized(b, y, 0.03), blocksize=3, mode="CRD")
    b.add("Conv", y, weights(b, (2, 3, 3, 3)), output="y", pads=[1] * 4)


def folded(b: Builder) -> None:
    """Blocks to channels, shuffled, and a part of them padded with their own values."""
    y = b.add("SpaceToDepth", quantized(b, "x"), blocksize=2)
    y = b.add("Reshape", y, b.constant([1, 2, 6, 3, 5], np.int64))
    y = b.add("Reshape", b.add("Transpose", y, perm=[0, 2, 1, 3, 4]), b.constant([1, 12, 3, 5], np.int64))
    y = b.add("Conv", y, weights(b, (12, 1, 1, 1)), group=12)
    y = b.add("Pad", requantized(b, y, 0.05, 121), b.constant([0, 0, 2, 1, 0, 0, 1, 3], np.int64), mode="reflect")
    y = b.add("Gather", y, b.constant([0, 11, 3, 4, 7], np.int64), axis=1)
    b.add("Conv", y, weights(b, (20, 5, 3, 3)), output="y")


def decoder(b: Builder) -> None:
    x = requantized(b, b.add("Relu", b.add("Conv", quantized(b, "x"), weights(b, (20, 3, 1, 1)))), 0.03)
    y = b.add(
        "ConvTranspose", x, weights(b, (20, 10, 4, 4), 1), b.rng.standard_normal(10), strides=[2, 2], pads=[1] * 4
    )
    y = requantized(b, b.add("Relu", b.norm(y, 10)), 0.05, 3)
    y = b.add("ConvTranspose", y, weights(b, (10, 3, 3, 3), 1), strides=[2, 3], group=2, output_padding=[1, 0])
    y = b.add("Concat", requantized(b, y, 0.1, 120), requantized(b, y, 0.2, 3), axis=1)
    b.add("Conv", y, weights(b, (3, 12, 1, 1)), output="y")


MODELS = {
    # (what writes it, the shape of x, the operators that run in float)
    "a perceptron over rows": (perceptron, (7, 21), {"LayerNormalization", "Softmax"}),
    "a Gemm over rows in axis 0": (flattened, (7, 21), {"Softmax"}),
    "a map with its channels last": (channels_last_map, (3, 5, 11), set()),
    "super-resolution": (super_resolution, (3, 5, 7), set()),
    "blocks and shuffles": (folded, (3, 6, 10), set()),
    "a decoder": (decoder, (3, 5, 6), set()),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("family", [None, "popcount"])
def test_what_moves_is_compiled(tmp_path, name, family):
    make, shape, in_float = MODELS[name]
    b = Builder(name, 17, shape)
    make(b)
    path = tmp_path / "m.onnx"
    onnx.save(b.model("y"), path)
    assert {n.op_type for n in load(path).nodes if isinstance(n, FloatOp)} == in_float
    bundle = compile_model(path, "native", tmp_path / "m.mpc", families={"*": family} if family else None)
    report = verify(path, bundle, b.rng.standard_normal((2, *shape)).astype(np.float32), threads=1)
    assert report.equal and report.reading.compared, report.summary
