"""ONNX Runtime as the thing to beat: sessions with a fixed number of threads, and int8 models in its own QDQ form."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.compiled import Bench
from benchmarks.networks import ConvShape, Network
from mpcompile.latency import onnxruntime
from mpcompile.latency.timer import Timer


def quantize_qdq(network: Network, target: Path, *, images: int = 4, seed: int = 1) -> Path:
    """The float network in ONNX Runtime's static QDQ form at `target`, calibrated on its input with noise."""
    rng = np.random.default_rng(seed)
    noisy = np.stack([network.x + 0.3 * rng.normal(size=network.x.shape) for _ in range(images)]).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="mpcompile-bench-") as folder:
        source = Path(folder) / "float.onnx"
        network.save(source)
        onnxruntime.quantize_int8(source, target, noisy)
    return target


def baselines(bench: Bench, name: str, make) -> dict[str, Timer]:
    """ "fp32" and "int8": the float network make(None) in ONNX Runtime, one thread."""
    prepared = prepare(bench, name, make)
    x, _ = bench.example(f"{name} float")
    found = {}
    for label, path in zip(("fp32", "int8"), prepared):
        session = onnxruntime.session(str(path), 1)
        found[label] = onnxruntime.timer(session, {session.get_inputs()[0].name: x[None]})
    return found


def prepare(bench: Bench, name: str, make) -> tuple[Path, Path]:
    """Files of the float network make(None) and of its int8 form."""
    source = bench.onnx(f"{name} float", lambda: make(None))
    target = source.with_name(f"{source.stem}_int8.onnx")
    if not target.exists():
        bench.say(f"quantizing {name} for ONNX Runtime")
        x, y = bench.example(f"{name} float")
        quantize_qdq(Network(onnx.load(source), x, y), target)
    return source, target


def conv_chain_qdq(shapes: list[ConvShape], seed: int = 0) -> onnx.ModelProto:
    """Convolutions with ReLU one after the other, each QDQ int8 per channel; codes (uint8) in, codes out, no float
    ends.

    The time of a layer without the layout changes at the ends is the time of a chain with it less that of one without.
    """
    rng = np.random.default_rng(seed)
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(value, name))
        return name

    def linear(op, x, scale, zero, name, **attributes):
        nodes.append(helper.make_node(op, [x, scale, zero], [name], name=name, **attributes))
        return name

    step, zero = constant("step", np.float32(0.02)), constant("zero", np.uint8(0))
    codes = "x"
    for i, s in enumerate(shapes):
        weight = rng.integers(-127, 128, (s.o, s.c, s.k, s.k)).astype(np.int8)
        scale = np.full(s.o, 0.6 / np.sqrt(s.c * s.k * s.k) / 73, np.float32)
        real = linear("DequantizeLinear", codes, step, zero, f"x{i}")
        w = linear(
            "DequantizeLinear",
            constant(f"q{i}", weight),
            constant(f"s{i}", scale),
            constant(f"z{i}", np.zeros(s.o, np.int8)),
            f"w{i}",
            axis=0,
        )
        bias = linear(
            "DequantizeLinear",
            constant(f"b{i}", rng.integers(-500, 500, s.o).astype(np.int32)),
            constant(f"bs{i}", scale * np.float32(0.02)),
            constant(f"bz{i}", np.zeros(s.o, np.int32)),
            f"bias{i}",
            axis=0,
        )
        nodes.append(
            helper.make_node(
                "Conv",
                [real, w, bias],
                [f"c{i}"],
                name=f"conv{i}",
                kernel_shape=[s.k, s.k],
                strides=[s.stride] * 2,
                pads=[s.k // 2] * 4,
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        codes = linear("QuantizeLinear", f"r{i}", step, zero, f"y{i}")
    first, last = shapes[0], shapes[-1]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, first.c, first.h, first.h])],
        [helper.make_tensor_value_info(codes, TensorProto.UINT8, [1, last.o, last.out, last.out])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
