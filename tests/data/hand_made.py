"""Writes the models of this folder that no Brevitas exporter makes: `python tests/data/hand_made.py [NAME …]`.

`hand_*` are built node by node with onnx.helper; `ort_*` by ONNX Runtime's quantize_static. Each file comes with
NAME.npz: inputs `x` (4 samples), and for `ort_*` and the standard ONNX files `y`, what ONNX Runtime computes for them
where it can.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
QONNX = "qonnx.custom_op.general"


class Builder:
    """A graph under construction: `add` appends a node and returns its output's name; arrays become initializers."""

    def __init__(self, name: str, opset: int, shape: tuple[int, ...], domains: tuple[str, ...] = ()):
        self.rng = np.random.default_rng(sum(map(ord, name)))
        self.name, self.opset, self.shape, self.domains = name, opset, shape, domains
        self.nodes, self.constants = [], []

    def constant(self, value, dtype=np.float32, kind: int | None = None) -> str:
        """An initializer; `kind` a TensorProto type for integers below 8 bits."""
        name = f"c{len(self.constants)}"
        array = np.asarray(value, dtype)
        self.constants.append(
            numpy_helper.from_array(array, name)
            if kind is None
            else helper.make_tensor(name, kind, array.shape, array.reshape(-1).tolist())
        )
        return name

    def add(self, op: str, *inputs, output: str | None = None, domain: str = "", **attributes) -> str:
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        output = output or f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], f"node_{output}", domain=domain, **attributes))
        return output

    def quant(
        self, x, scale, zero, bits, output=None, op="IntQuant", domain=QONNX, signed=1, narrow=0, mode="ROUND"
    ) -> str:
        return self.add(
            op,
            x,
            np.float32(scale),
            np.float32(zero),
            np.float32(bits),
            output=output,
            domain=domain,
            signed=signed,
            narrow=narrow,
            rounding_mode=mode,
        )

    def norm(self, x: str, channels: int) -> str:
        """BatchNormalization with random statistics; about a quarter of the gammas negative."""
        r = self.rng
        gamma = r.uniform(0.5, 1.5, channels) * np.where(r.random(channels) < 0.25, -1, 1)
        return self.add(
            "BatchNormalization",
            x,
            gamma,
            0.4 * r.standard_normal(channels),
            0.2 * r.standard_normal(channels),
            r.uniform(0.3, 1.3, channels),
        )

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, *self.shape))],
            [onnx.ValueInfoProto(name=o) for o in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in self.domains)]
        known = self.opset < onnx.defs.onnx_opset_version()  # onnx's own table lacks the newest, unreleased one
        version = helper.find_min_ir_version_for(opsets[:1]) if known else onnx.IR_VERSION
        return typed(helper.make_model(graph, opset_imports=opsets, ir_version=version))


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Element types and shapes for the outputs: by onnx's inference, quantizers of other domains read as Identity."""
    plain = onnx.ModelProto.FromString(model.SerializeToString())
    for node in plain.graph.node:
        if node.domain:
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    found = {v.name: v for v in onnx.shape_inference.infer_shapes(plain, strict_mode=True).graph.output}
    for value in model.graph.output:
        value.CopyFrom(found[value.name])
    return model


# -- QONNX -------------------------------------------------------------------------------------------------------------
def half_integer(name: str):
    """Unsigned 2-bit codes around 1.5: the odd grid −3, −1, 1, 3 for weights and activations; no code for 0 under the
    padding."""
    b = Builder(name, 17, (3, 10, 10), (QONNX,))
    x = b.quant("x", 0.5, 1.5, 2, signed=0)
    w = b.quant(b.rng.standard_normal((11, 3, 3, 3)), b.rng.uniform(0.2, 0.6, (11, 1, 1, 1)), 1.5, 2, signed=0)
    x = b.norm(b.add("Conv", x, w, pads=[1, 1, 1, 1]), 11)
    x = b.quant(x, 0.75, 0.5, 3, signed=0)
    w = b.quant(b.rng.standard_normal((9, 11, 3, 3)), 0.4, -0.5, 2, signed=1)
    b.add("Conv", x, w, output="y", strides=[2, 2], pads=[0, 1, 1, 0])
    return b.model("y")


def roundings(name: str):
    """One convolution, quantized in every rounding mode, signed and unsigned, narrow, with zero points; many exact
    ties."""
    b = Builder(name, 17, (4, 8, 8), (QONNX, "onnx.brevitas", "finn.custom_op.general"))
    x = b.quant("x", 0.25, 0, 4)
    w = b.quant(b.rng.standard_normal((6, 4, 3, 3)), 0.5, 0, 3, narrow=1)
    acc = b.add("Conv", x, w, pads=[1, 1, 1, 1])  # multiples of 1/8
    outputs = []
    for i, mode in enumerate(("ROUND", "HALF_EVEN", "HALF_UP", "HALF_DOWN", "CEIL", "FLOOR", "UP", "DOWN")):
        domain = (QONNX, "onnx.brevitas", "finn.custom_op.general")[i % 3]
        outputs.append(
            b.quant(
                acc, 0.25, 0, 4, f"y_{mode}_signed", "Quant" if i % 2 else "IntQuant", domain, mode=mode, narrow=i % 2
            )
        )
        outputs.append(b.quant(acc, 0.25, 3, 4, f"y_{mode}_zero", "Quant", domain, signed=0, mode=mode))
    outputs.append(b.quant(acc, 0.5, 0, 1, "y_one_signed_bit"))
    outputs.append(b.quant(acc, 0.5, 0, 1, "y_one_bit", signed=0))
    outputs.append(b.add("BipolarQuant", acc, np.float32(0.5), output="y_bipolar", domain=QONNX))
    return b.model(*outputs)


def trunc_v1(name: str):
    """Average pooling as Brevitas wrote it before 0.12: average, times the window's size, Trunc of five inputs."""
    b = Builder(name, 13, (3, 12, 12), (QONNX,))
    x = b.quant("x", 0.1, 0, 8)
    w = b.quant(b.rng.standard_normal((10, 3, 3, 3)), 0.2, 0, 4, narrow=1)
    x = b.quant(b.add("Relu", b.norm(b.add("Conv", x, w), 10)), 0.3, 0, 4, signed=0)
    x = b.add("Mul", b.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), np.float32(4))
    x = b.add(
        "Trunc", x, np.float32(0.3), np.float32(0), np.float32(6), np.float32(4), domain=QONNX, rounding_mode="FLOOR"
    )
    w = b.quant(b.rng.standard_normal((7, 10 * 25)), 0.3, 0, 2, narrow=1)
    b.add("Gemm", b.add("Flatten", x), w, b.rng.standard_normal(7), output="y", transB=1)
    return b.model("y")


# -- QDQ with integers below 8 bits ------------------------------------------------------------------------------------
def small_integers(name: str, opset: int, weight: int, activation: int, bits: int):
    """QDQ with weights and activations of `bits` bits, INT32 bias, weights quantized per channel along axis 0 and
    (dense) axis 1."""
    b = Builder(name, opset, (3, 12, 12))
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    r = b.rng

    def qdq(x, scale, zero=0):
        s, z = b.constant(scale), b.constant(zero, np.int64, activation)
        return b.add("DequantizeLinear", b.add("QuantizeLinear", x, s, z), s, z)

    def weights(shape, axis):
        s = b.constant(r.uniform(0.1, 0.4, shape[axis]))
        return b.add(
            "DequantizeLinear",
            b.constant(r.integers(low, high + 1, shape), np.int64, weight),
            s,
            b.constant(np.zeros(shape[axis]), np.int64, weight),
            axis=axis,
        )

    s, z = b.constant(np.float32(0.05)), b.constant(128, np.uint8)
    x = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", s, z), s, z)
    bias = b.add("DequantizeLinear", b.constant(r.integers(-200, 200, 10), np.int32), np.float32(0.01))
    x = qdq(b.add("Relu", b.add("Conv", x, weights((10, 3, 3, 3), 0), bias, pads=[1, 1, 1, 1])), np.float32(0.3), 1)
    x = b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = qdq(b.norm(b.add("Conv", x, weights((14, 10, 3, 3), 0), strides=[2, 2]), 14), np.float32(0.4), 1 << (bits - 1))
    x = b.add("Flatten", x)
    b.add("Add", b.add("MatMul", x, weights((14 * 4, 6), 1)), r.standard_normal(6), output="y")
    return b.model("y")


# -- ONNX Runtime ------------------------------------------------------------------------------------------------------
def float_cnn(name: str) -> onnx.ModelProto:
    b = Builder(name, 17, (3, 16, 16))
    r = b.rng
    x = b.add(
        "Relu",
        b.add("Conv", "x", 0.3 * r.standard_normal((12, 3, 3, 3)), 0.2 * r.standard_normal(12), pads=[1, 1, 1, 1]),
    )
    y = b.add("Conv", x, 0.15 * r.standard_normal((12, 12, 3, 3)), 0.2 * r.standard_normal(12), pads=[1, 1, 1, 1])
    x = b.add("Relu", b.add("Add", x, y))
    x = b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Conv", x, 0.3 * r.standard_normal((12, 1, 3, 3)), 0.1 * r.standard_normal(12), group=12)
    x = b.add("Clip", x, np.float32(0), np.float32(6))
    x = b.add("Flatten", b.add("GlobalAveragePool", b.add("Concat", x, x, axis=1)))
    b.add("Gemm", x, 0.3 * r.standard_normal((24, 10)), 0.1 * r.standard_normal(10), output="y")
    return b.model("y")


def runtime(name: str, activations: str, per_channel: bool):
    """quantize_static of a small network with a residual add: QDQ, int8 weights, activations of 8 bits."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self):
            self.left = [np.random.default_rng(i).standard_normal((1, 3, 16, 16)).astype(np.float32) for i in range(8)]

        def get_next(self):
            return {"x": self.left.pop()} if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(float_cnn(name), source)
        quantize_static(
            source,
            result,
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            activation_type=QuantType[activations],
        )
        return onnx.load(result)


MODELS = {
    "hand_half_integer": half_integer,
    "hand_roundings": roundings,
    "hand_trunc_v1": trunc_v1,
    "hand_qdq_int4": lambda name: small_integers(name, 21, TensorProto.INT4, TensorProto.UINT4, 4),
    "hand_qdq_int2": lambda name: small_integers(name, 25, TensorProto.INT2, TensorProto.UINT2, 2),
    "ort_qdq_uint8": lambda name: runtime(name, "QUInt8", True),
    "ort_qdq_int8": lambda name: runtime(name, "QInt8", False),
}


def make(name: str) -> None:
    import onnxruntime

    model = MODELS[name](name)
    path = HERE / f"{name}.onnx"
    onnx.save(model, path)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(1).standard_normal((4, *shape)).astype(np.float32)
    arrays = {"x": x}
    if name.startswith("ort_"):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        arrays["y"] = np.concatenate([session.run(None, {"x": sample[None]})[0] for sample in x])
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or MODELS:
        make(chosen)
