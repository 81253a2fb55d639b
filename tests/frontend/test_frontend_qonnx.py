"""IntQuant, BipolarQuant and Trunc against qonnx's own functions, over every rounding mode, bit width and kind of zero
point."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import qonnx
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.custom_op.general.bipolar_quant import binary_quant
from qonnx.custom_op.general.intquant import int_quant
from qonnx.custom_op.general.trunc import trunc_v1, trunc_v2

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import codes, interpret
from tests.data.hand_made import QONNX, Builder
from tests.frontend.outside_executors import by_qonnx

F32 = np.float32
MODES = ("ROUND", "HALF_EVEN", "HALF_UP", "HALF_DOWN", "CEIL", "FLOOR", "UP", "DOWN")
DOMAINS = (QONNX, "onnx.brevitas", "finn.custom_op.general")
PACKAGED = Path(qonnx.__file__).parent / "data" / "onnx"


def loaded(folder, b: Builder, *outputs):
    path = Path(folder) / "m.onnx"
    onnx.save(b.model(*outputs), path)
    return load(path)


def samples(scale: float, zero: float, rng) -> np.ndarray:
    """Ties, whole steps, borders beyond any 8-bit range, and what lies between: float32 [1600]."""
    steps = np.concatenate([np.arange(-300, 300, 0.5), rng.uniform(-300, 300, 200), rng.uniform(-2, 2, 200)])
    return ((steps - zero) * scale).astype(F32)


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(1, 8),
    signed=st.booleans(),
    narrow=st.booleans(),
    mode=st.sampled_from(MODES),
    twice_zero=st.integers(-20, 300),
    scale=st.sampled_from([1.0, 0.25, 0.1, 3.0, 1e-3]),
    domain=st.sampled_from(DOMAINS),
    op=st.sampled_from(["IntQuant", "Quant"]),
    seed=st.integers(0, 9),
)
def test_int_quant_of_an_activation(tmp_path_factory, bits, signed, narrow, mode, twice_zero, scale, domain, op, seed):
    zero = 0.0 if signed and bits == 1 else twice_zero / 2
    x = samples(scale, zero, np.random.default_rng(seed))
    b = Builder("q", 17, x.shape, (domain,))
    b.quant("x", scale, zero, bits, "y", op, domain, int(signed), int(narrow), mode)
    graph = loaded(tmp_path_factory.getbasetemp(), b, "y")
    theirs = int_quant(x, F32(scale), F32(zero), F32(bits), signed, narrow, mode)
    mine = interpret(graph, {"x": x})["y"]
    quantizer = graph.types["y"].quantizer
    assert quantizer.grid.bits <= bits
    np.testing.assert_array_equal(codes(mine, quantizer), codes(theirs, quantizer))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * scale)


@settings(max_examples=100, deadline=None)
@given(
    bits=st.integers(1, 8),
    signed=st.booleans(),
    narrow=st.booleans(),
    mode=st.sampled_from(MODES),
    twice_zero=st.integers(0, 30),
    per_channel=st.booleans(),
    seed=st.integers(0, 9),
)
def test_int_quant_of_weights(tmp_path_factory, bits, signed, narrow, mode, twice_zero, per_channel, seed):
    """q·scale is qonnx's real weight, on a grid of no more planes than bits."""
    rng = np.random.default_rng(seed)
    zero = 0.0 if signed and bits == 1 else twice_zero / 2
    scale = rng.uniform(0.05, 0.5, (6, 1, 1, 1) if per_channel else ()).astype(F32)
    data = (rng.integers(-40, 40, (6, 3, 2, 2)) / 2 * scale).astype(F32)
    b = Builder("w", 17, (3, 4, 4), (QONNX,))
    b.add(
        "Conv",
        b.quant("x", 1, 0, 4),
        b.quant(data, scale, zero, bits, signed=int(signed), narrow=int(narrow), mode=mode),
        output="y",
    )
    weight = loaded(tmp_path_factory.getbasetemp(), b, "y").nodes[-1].weight
    theirs = int_quant(data, scale, F32(zero), F32(bits), signed, narrow, mode)
    np.testing.assert_allclose(weight.q * weight.scale.reshape(-1, 1, 1, 1), theirs, rtol=1e-5, atol=1e-6)
    assert weight.grid.planes <= bits
    weight.grid.level(weight.q)  # every one is on the grid


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_bipolar_quant(tmp_path, scale):
    x = np.array([-2, -1e-30, -0.0, 0.0, 1e-30, 3], F32)
    b = Builder("b", 17, x.shape, (QONNX,))
    b.add("BipolarQuant", "x", F32(scale), output="y", domain=QONNX)
    b.add("Gemm", "y", b.add("BipolarQuant", b.rng.standard_normal((6, 4)), F32(0.25), domain=QONNX), output="z")
    graph = loaded(tmp_path, b, "y", "z")
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], binary_quant(x, F32(scale)))
    for grid in (graph.types["y"].grid, graph.nodes[-1].weight.grid):
        assert grid.values.tolist() == [-1, 1] and grid.planes == 1


@settings(max_examples=60, deadline=None)
@given(
    version=st.sampled_from([1, 2]),
    mode=st.sampled_from(MODES),
    signed=st.booleans(),
    narrow=st.booleans(),
    shift=st.integers(0, 4),
    bits=st.integers(2, 8),
    out_bits=st.integers(2, 8),
    window=st.sampled_from([2, 3, 4]),
    seed=st.integers(0, 9),
)
def test_trunc_of_an_average(tmp_path_factory, version, mode, signed, narrow, shift, bits, out_bits, window, seed):
    """Average pooling of codes, times the window's size, truncated."""
    rng = np.random.default_rng(seed)
    scale, area = F32(0.3), window * window
    in_bits = bits + int(np.ceil(np.log2(area)))
    x = (scale * rng.integers(-(1 << bits), 1 << bits, (2, 12, 12))).astype(F32)
    b = Builder("t", 17, x.shape, (QONNX,))
    codes_ = b.quant("x", scale, 0, bits, signed=int(signed))
    sums = b.add("Mul", b.add("AveragePool", codes_, kernel_shape=[window] * 2, strides=[window] * 2), F32(area))
    if version == 1:
        out_bits = max(2, in_bits - shift)
        last = b.add(
            "Trunc", sums, scale, F32(0), F32(in_bits), F32(out_bits), domain=QONNX, rounding_mode=mode, output="y"
        )
    else:
        last = b.add(
            "Trunc",
            sums,
            scale,
            F32(0),
            F32(in_bits),
            scale * F32(2**shift),
            F32(out_bits),
            domain=QONNX,
            rounding_mode=mode,
            signed=int(signed),
            narrow=int(narrow),
            output="y",
        )
    path = Path(tmp_path_factory.getbasetemp()) / "trunc.onnx"
    onnx.save(b.model(last), path)
    if version == 1 and (1 << out_bits) > 256:  # v1 clamps nothing: its output may need more than 8 bits
        try:
            graph = load(path)
        except ModelError as error:
            assert "bits; 1 to 8 would be accepted" in str(error)
            return
    graph = load(path)
    mine = interpret(graph, {"x": x})
    exact = np.rint(mine["Mul" + sums[3:]] / scale) * scale  # qonnx rounds this way too, before it truncates
    theirs = (
        trunc_v1(exact, scale, F32(0), F32(in_bits), F32(out_bits), mode)
        if version == 1
        else trunc_v2(exact, scale, F32(0), F32(in_bits), narrow, signed, scale * F32(2**shift), F32(out_bits), mode)
    )
    np.testing.assert_allclose(mine["y"], theirs, rtol=1e-5, atol=1e-5)


PACKAGED_FILES = [
    "residual_block_clean",
    "mnist-conv/model",
    "eltwise_chanlast_testcase",
    "bsd300x3-espcn/subpixel/float_model",
    "bsd300x3-espcn/nn_resize/float_model",
    "bsd300x3-espcn/subpixel/quant_model",
    "bsd300x3-espcn/nn_resize/quant_model",
]


@pytest.mark.parametrize("name", PACKAGED_FILES)
def test_files_that_qonnx_ships(name):
    """Models of several exporters and opsets (8 to 19) that we had no hand in."""
    path = PACKAGED / f"{name}.onnx"
    graph = load(path)
    (source,) = graph.inputs
    x = np.random.default_rng(0).standard_normal(graph.types[source].shape).astype(F32)
    if name == "eltwise_chanlast_testcase":  # its input is annotated as whole numbers from 0 to 255
        x = np.clip(np.rint(100 + 50 * x), 0, 255)
    theirs = by_qonnx(path, x)
    quantized = {t for n in graph.nodes for t in n.outputs if graph.types[t].quantizer and t in theirs}
    mine = interpret(graph, {source: x}, given={t: theirs[t] for t in quantized})
    for t in quantized:
        apart = np.abs(codes(mine[t], graph.types[t].quantizer) - codes(theirs[t], graph.types[t].quantizer))
        assert apart.max() <= graph.types[t].grid.step and (apart == 0).mean() >= 0.9999
    (output,) = set(graph.outputs) - quantized or {None}
    if output:
        np.testing.assert_allclose(mine[output], theirs[output], rtol=1e-3, atol=1e-4 * np.abs(theirs[output]).max())
