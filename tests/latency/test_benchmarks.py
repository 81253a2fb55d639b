"""What the benchmarks stand on: networks that mean what they say, baselines, ceilings, rows."""

import numpy as np
import pytest

from benchmarks import roofline
from benchmarks.compiled import Bench
from benchmarks.layers import dot_rows, halves, popcount_rows, whole_layer_target
from benchmarks.networks import RESNET18_LAYERS, Bits, ConvShape, conv_layer, resnet18
from benchmarks.onnxruntime_baseline import conv_chain_qdq, quantize_qdq
from benchmarks.row import Row, markdown, summary
from mpcompile.errors import MpError
from mpcompile.frontend import load
from mpcompile.ir.graph import Add, Conv, Dense, Quantize
from mpcompile.ir.grid import bipolar, twos_complement, unsigned
from mpcompile.kernels.select import expected_family
from mpcompile.latency import onnxruntime
from mpcompile.latency.measure import measure
from mpcompile.targets import load_target

SMALL = ConvShape(64, 8, 64)


@pytest.mark.parametrize("bits", [Bits(1, 1), Bits(2, 2), Bits(3, 5), Bits(8, 8)], ids=str)
def test_qonnx_s_executor_computes_what_numpy_did(bits):
    qonnx = pytest.importorskip("qonnx.core.onnx_exec")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    network = conv_layer(SMALL, bits)
    model = ModelWrapper(network.model).transform(InferShapes())
    found = qonnx.execute_onnx(model, network.feed)[model.graph.output[0].name][0]
    np.testing.assert_allclose(found, network.y, atol=1e-4)


def test_resnet18_is_what_it_says(tmp_path):
    resnet18(Bits(1, 2), size=64, classes=10).save(tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    weights = [n.weight.grid for n in graph.nodes if isinstance(n, (Conv, Dense))]
    assert weights == [twos_complement(8)] + [bipolar()] * 19 + [twos_complement(8)]
    grids = [n.quantizer.grid for n in graph.nodes if isinstance(n, Quantize)]
    assert grids == [twos_complement(8)] + [unsigned(2)] * 16 + [unsigned(8)]
    assert sum(isinstance(n, Add) for n in graph.nodes) == 8
    assert all(
        len(n.weight.scale) == len(n.weight.q) and len(set(n.weight.scale)) > 1
        for n in graph.nodes
        if isinstance(n, Conv)
    )


def test_networks_are_the_same_each_time():
    one, two, other = (conv_layer(SMALL, Bits(1, 1), seed=s).model.SerializeToString() for s in (0, 0, 1))
    assert one == two != other


def test_activations_neither_saturate_nor_die():
    for bits in (Bits(1, 1), Bits(2, 2), Bits(4, 4)):
        network = resnet18(bits, size=64, classes=100)
        assert network.y.std() > 0.3


@pytest.mark.parametrize("shape", RESNET18_LAYERS, ids=str)
def test_layer_shapes(shape):
    assert shape.macs == shape.out**2 * shape.o * shape.c * 9
    assert shape.out == shape.h // shape.stride
    small, large = halves(shape)
    assert large.c == 2 * small.c and (small.o, small.h, small.stride) == (shape.o, shape.h, shape.stride)
    assert whole_layer_target(shape) == (0.75 if shape.c >= 128 else 0.65)


def test_onnx_runtime_s_int8_model_is_int8_and_right(tmp_path):
    import onnx

    network = conv_layer(SMALL, None)
    model = quantize_qdq(network, tmp_path / "int8.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in onnx.load(model).graph.node}
    session = onnxruntime.session(str(model), 1)
    found = session.run(None, network.feed)[0][0]
    assert np.corrcoef(found.ravel(), network.y.ravel())[0, 1] > 0.999


def test_the_chain_runs_as_quantized_convolutions(tmp_path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(conv_chain_qdq([SMALL, ConvShape(64, 8, 32, 2)]).SerializeToString(), options)
    import onnx

    kinds = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2 and "Conv" not in kinds and "QuantizeLinear" not in kinds


def test_the_ceilings_are_ceilings():
    found = roofline.Ceilings.of(measure(roofline.timers(), rounds=5))
    assert 0.5e9 < found.clock < 10e9
    assert 8 <= found.popcount / found.clock <= 2100 and 4 <= found.dot / found.clock <= 520
    assert all(loop.work > 0 for loop in roofline.loops().values())


def test_rows_of_one_layer(monkeypatch):
    """The rows through the whole way: QONNX, compile, ceilings and ONNX Runtime in one run; TVM 0.19 absent."""
    monkeypatch.setattr("benchmarks.layers.RESNET18_LAYERS", (SMALL,))
    monkeypatch.setattr("benchmarks.layers.LOW_BITS", (Bits(1, 1),))
    bench = Bench(say=lambda line: None)
    try:
        kernel, whole, tvm = popcount_rows(bench, 5, None, "not here")
        (dot,) = dot_rows(bench, 5)
    finally:
        bench.close()
    assert 0 < whole.value < 1.2 and whole.detail["family"] == expected_family(load_target("native"), 1, 1)
    assert kernel.value is None or 0 < kernel.value < 1.05
    assert tvm.value is None and tvm.reached is None and "not here" in markdown([tvm])
    assert dot.value is None or dot.value > 0.2


def test_a_bundle_that_computes_something_else_is_no_result(monkeypatch):
    bench, network = Bench(say=lambda line: None), conv_layer(SMALL, Bits(2, 2))
    wrong = type(network)(network.model, network.x, np.random.default_rng(0).normal(size=network.y.shape))
    try:
        with pytest.raises(MpError, match="correlate"):
            bench.bundle("wrong", lambda: wrong)
    finally:
        bench.close()


def test_rows_say_whether_they_are_reached():
    assert Row("g", "w", 2.6, "×", 2.5).reached and not Row("g", "w", 2.4, "×", 2.5).reached
    assert Row("g", "w", 14.0, "s", 15.0).reached and not Row("g", "w", 2.1, "× bytes", 2.0).reached
    assert Row("g", "w", 1.0, "×").reached is None
    text = markdown([Row("g", "a", 2.4, "×", 2.5), Row("g", "b", None, "×", 2.5, "why"), Row("h", "c", 0.1, "s", 0.2)])
    lines = text.splitlines()
    assert lines[2] == "| g | a | 2.40 × |  | ≥ 2.5 NO |  |"
    assert lines[3] == "|  | b | not measured |  | ≥ 2.5 | why |"
    assert lines[4] == "| h | c | 0.10 s |  | ≤ 0.2 yes |  |"


def test_a_summary_has_a_line_for_each_group():
    rows = [Row("g", w, v, "×", 2.5) for w, v in (("a", 2.4), ("b", None), ("c", 3.0), ("d", 2.6))]
    lines = summary([*rows, Row("h", "e", 0.1, "s", 0.2), Row("i", "f", None, "×")]).splitlines()[2:]
    assert lines == [
        "| g, × | 2.40 | 2.60 | 3.00 | ≥ 2.5 | 2 of 4 |",
        "| h: e, s | 0.10 | 0.10 | 0.10 | ≤ 0.2 | 1 of 1 |",
        "| i: f, × |  | not measured |  |  |  |",
    ]


def test_what_the_ceiling_forbids_is_told():
    rows = [Row("g", "a", 12.0, "×", 15, most=13.04), Row("g", "b", 16.0, "×", 15, most=18.0)]
    assert markdown(rows).splitlines()[2] == "| g | a | 12.00 × | 13.0 | ≥ 15 NO |  |"
    assert summary(rows).splitlines()[2].endswith("| ≥ 15 | 1 of 2, 1 could on this CPU |")
    assert not rows[0].possible and rows[1].possible and Row("g", "c", 1.0, "×", 2.0).possible


def test_tables_of_avx2():
    from benchmarks.avx2_tables import markdown as avx2

    family = {"seconds": 2e-4, "loop": 0.9, "whole": 0.8, "c_seconds": 3e-4, "before": 2.4e-4, "ceiling": 1e11}
    about = {"cpu": "a CPU", "when": "today"}
    layers = [
        {
            "bits": "W1A1",
            "layer": "64x8x8->64 3x3",
            "macs": 2_359_296,
            "clock": 3e9,
            "chosen": "dot",
            "chosen_before": "popcount",
            "families": {"popcount": {**family, "loop": 3.0}, "dot": family},
        }
    ]
    choices = [
        {
            "bits": bits,
            "layer": "64x8x8->64 3x3",
            "chosen": "dot",
            "chosen_before": "popcount",
            "seconds": {"popcount": seconds, "dot": 1e-4, "lookup": 3e-4},
        }
        for bits, seconds in (("W1A1", 5e-5), ("W8A8", 1e-3))
    ]
    networks = [{"bits": "W8A8", "now": 1e-2, "before": 2e-2, "int8": 5e-3, "fp32": 3e-2}]
    text = avx2(
        {
            "layers": {"rows": layers, **about},
            "choices": {"rows": choices, **about},
            "networks": {"rows": networks, **about},
        }
    )
    assert "| W1A1 | 64x8x8->64 3x3 | popcount | cannot tell | 0.80 | 12 | 1.50 | 1.20 |" in text
    assert "| **dot** | 0.90 |" in text and "1.20× in the geometric mean" in text
    assert "| 64x8x8->64 3x3 | W1A1 | **50** | 100 | 300 | dot | 2.00 |" in text
    assert "The cost model picks the fastest of the three in 1 of 2; elsewhere its choice takes up to 2.00" in text
    assert "Before, it picks the fastest of the three in 1 of 2; elsewhere its choice takes up to 10.00" in text
    assert "| W8A8 | 10.00 | 0.50 | 3.00 | 2.00 |" in text
