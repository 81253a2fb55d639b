"""Blocked quantization (DequantizeLinear's block_size): blocks that are whole channels are a scale a channel; weights with
several scales in an output channel run in float, and that is said."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from tests.data.hand_made import QONNX, Builder
from tests.frontend.test_frontend_operators import check, quantized


def blocked(b: Builder, shape, axis: int, block: int, kind: int | None = None, zero: bool = True) -> str:
    """Weights whose scales, and zero points, are of blocks along an axis."""
    of = [-(-n // block) if i == axis else n for i, n in enumerate(shape)]
    scales = b.constant(b.rng.uniform(0.01, 0.04, of))
    low, high = (-8, 8) if kind == TensorProto.INT4 else (-127, 128)
    codes = b.constant(b.rng.integers(low, high, shape), np.int8, kind)
    zeros = [b.constant(np.zeros(of), np.int8, kind)] if zero else []
    return b.add("DequantizeLinear", codes, scales, *zeros, axis=axis, block_size=block)


@pytest.mark.parametrize("kind", [None, TensorProto.INT4])
@pytest.mark.parametrize("op, shape, axis", [("MatMul", (12, 7), 0), ("Gemm", (12, 7), 0)])
def test_blocks_of_whole_channels_are_channels(tmp_path, op, shape, axis, kind):
    b = Builder("whole", 21, (12,))
    b.add(op, quantized(b, "x"), blocked(b, shape, axis, shape[axis], kind), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Dense"})
    assert graph.nodes[-1].weight.scale.shape == (7,)


def test_blocks_of_whole_channels_of_a_convolution(tmp_path):
    b = Builder("conv", 21, (8, 5, 6))
    weights = blocked(b, (6, 8, 1, 1), 1, 8, zero=False)
    b.add("Conv", quantized(b, "x"), weights, output="y")
    assert check(tmp_path, b, "y", ops={"Quantize", "Conv"}).nodes[-1].weight.scale.shape == (6,)


@pytest.mark.parametrize("block", [4, 5])
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_several_blocks_of_a_channel_run_in_float(tmp_path, op, block):
    b = Builder("blocks", 21, (12,))
    b.add(op, quantized(b, "x"), blocked(b, (12, 7), 0, block), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "FloatOp"})
    assert "several scales within one output channel" in graph.nodes[-1].reason


def test_several_blocks_of_a_convolutions_channel_run_in_float(tmp_path):
    b = Builder("conv", 21, (8, 5, 6))
    b.add("Conv", quantized(b, "x"), blocked(b, (6, 8, 3, 3), 1, 4), output="y")
    assert "blocked" in check(tmp_path, b, "y", ops={"Quantize", "FloatOp"}).nodes[-1].reason
    b = Builder("transposed", 21, (8, 5, 6))
    b.add("ConvTranspose", quantized(b, "x"), blocked(b, (8, 6, 2, 2), 0, 4), output="y", strides=[2, 2])
    assert "blocked" in check(tmp_path, b, "y", ops={"Quantize", "FloatOp"}).nodes[-1].reason


def test_qonnx_weights_with_several_scales_in_a_channel_run_in_float(tmp_path):
    b = Builder("qonnx", 17, (4, 5, 5), (QONNX,))
    data = b.rng.standard_normal((3, 4, 2, 2))
    weights = b.add(
        "IntQuant", data, b.constant(np.arange(1, 5).reshape(1, 4, 1, 1)), *map(np.float32, (0, 4)), domain=QONNX
    )
    b.add("Conv", b.quant("x", 0.5, 0, 4), weights, output="y")
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    assert "blocked" in load(tmp_path / "m.onnx").nodes[-1].reason


def test_scales_of_other_blocks_are_refused(tmp_path):
    b = Builder("wrong", 21, (12,))
    codes, scales = b.constant(np.ones((12, 7)), np.int8), b.constant(np.ones((2, 7)))
    b.add("MatMul", quantized(b, "x"), b.add("DequantizeLinear", codes, scales, axis=0, block_size=5), output="y")
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"scales of shape \[2, 7\] for blocks of 5 .*; \[3, 7\] would be accepted"):
        load(tmp_path / "m.onnx")
