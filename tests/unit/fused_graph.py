"""A small fused graph of many parts: two terms, a skip, several outputs, a concat, pools, float operators."""

import numpy as np
from onnx import TensorProto, helper

from mpcompile.ir.graph import Concat, FloatOp, Graph, Quantizer, Reshape, TensorType, Transpose
from mpcompile.ir.grid import bipolar, odd, twos_complement, unsigned
from mpcompile.ir.layer import Clamp, ContractPart, ContractTerm, Fma, Layer, Load, Output, PoolTerm, Round, ViewTerm

Q_IN = Quantizer(twos_complement(8), 0.05)
Q_A = Quantizer(unsigned(2), 0.3)
Q_B = Quantizer(bipolar(), 0.5, rounding="sign")
F = np.float32


def float_op(op_type: str, name: str, source: str, to: str, shape: tuple[int, ...]) -> FloatOp:
    """A one-node ONNX model around `op_type`, which keeps the shape."""
    io = [helper.make_tensor_value_info(t, TensorProto.FLOAT, (1, *shape)) for t in (source, to)]
    graph = helper.make_graph([helper.make_node(op_type, [source], [to])], name, io[:1], io[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return FloatOp(name, [source], [to], op_type, model.SerializeToString())


def fused_graph(seed: int = 0) -> Graph:
    """x (3, 6, 7) → probabilities (10,), and the float skip as a second output."""
    rng = np.random.default_rng(seed)
    w1 = odd(2).value(rng.integers(0, 4, (9, 3, 3, 3)))
    wa, wb = (rng.integers(-4, 4, (5, 9, 3, 4)) for _ in range(2))
    a1, b1 = rng.lognormal(-4, 0.3, 9).astype(F), rng.normal(0, 0.2, 9).astype(F)
    nodes = [
        Layer(
            "quantize",
            ["x"],
            ["xq"],
            (3, 6, 7),
            [ViewTerm("x")],
            [Load(0), Fma(0, F([20]), F([0])), Round(1, "half_even", -128, 127)],
            [Output("xq", 2, Q_IN)],
        ),
        Layer(
            "conv",
            ["xq"],
            ["a", "b", "skip"],
            (9, 3, 4),
            [ContractTerm([ContractPart("xq", w1, odd(2), (2, 2), (1, 1, 1, 1))])],
            [
                Load(0),
                Fma(0, a1, b1),
                Round(1, "sign", 0, 1),
                Clamp(1, 0.0, np.inf),
                Fma(3, F([1 / 0.3]), F([0])),
                Round(4, "half_even", 0, 3),
            ],
            [Output("a", 5, Q_A), Output("b", 2, Q_B), Output("skip", 3)],
        ),
        float_op("Sigmoid", "sigmoid", "skip", "gate", (9, 3, 4)),
        Layer(
            "mix",
            ["a", "gate"],
            ["c"],
            (9, 3, 4),
            [PoolTerm("a", "max", (2, 1), (1, 1), (1, 0, 0, 0)), ViewTerm("gate")],
            [Load(0), Load(1), Fma(0, F([0.5]), 1), Fma(2, F([-2]), F([5.5])), Round(3, "half_up", 0, 3)],
            [Output("c", 4, Q_A)],
        ),
        Layer(
            "dense",
            ["b", "c"],
            ["y"],
            (5, 1, 1),
            [ContractTerm([ContractPart("b", wa, twos_complement(3)), ContractPart("c", wb, twos_complement(3))])],
            [Load(0), Fma(0, F([0.02]), rng.normal(size=5).astype(F))],
            [Output("y", 1)],
        ),
        Reshape("flatten", ["y"], ["logits"], (5,)),
        float_op("Abs", "abs", "logits", "sizes", (5,)),
        Concat("join", ["sizes", "logits"], ["both"]),
        float_op("Softmax", "softmax", "both", "p", (10,)),
        Transpose("turn", ["skip"], ["turned"], (1, 2, 0)),
    ]
    types = {
        "x": TensorType((3, 6, 7)),
        "xq": TensorType((3, 6, 7), Q_IN),
        "a": TensorType((9, 3, 4), Q_A),
        "b": TensorType((9, 3, 4), Q_B),
        "skip": TensorType((9, 3, 4)),
        "gate": TensorType((9, 3, 4)),
        "c": TensorType((9, 3, 4), Q_A),
        "y": TensorType((5, 1, 1)),
        "logits": TensorType((5,)),
        "sizes": TensorType((5,)),
        "both": TensorType((10,)),
        "p": TensorType((10,)),
        "turned": TensorType((3, 4, 9)),
    }
    return Graph(nodes, types, ["x"], ["p", "turned"], "small").check()


def small_input(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (3, 6, 7)).astype(F)
