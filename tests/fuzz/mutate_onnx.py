"""Random edits of an ONNX file that keep it a protobuf: what exporters and hands do wrong, and what nobody does."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

DATA = Path(__file__).parents[1] / "data"
FOUND = DATA / "fuzz"
LARGEST = 64_000
"""Bytes of a file that is mutated."""
NAMES = (
    "",
    " ",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "é∞",
    "x" * 3000,
    "a/b",
    "../x",
    "0",
    "None",
    "\x00",
    "x.on_grid",
    "x.copy",
    "%s{}",
)
NUMBERS = (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-45, 1e-38, 1e38, 3.4e38, 0.5, 1.5, 256.0, 17.0, 1e20)
INTEGERS = (0, 1, -1, 2, 3, -2, 7, 100, 1 << 15, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63), 1 << 40)
DIMENSIONS = (0, 1, -1, 2, 3, 5, 64, 1000, 65536, 1 << 31, 1 << 40, (1 << 63) - 1)
OPERATORS = (
    "Abs Add And ArgMax AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant "
    "ConstantOfShape Conv ConvTranspose DepthToSpace DequantizeLinear Div Dropout Einsum Erf Expand "
    "Flatten Gather Gemm GlobalAveragePool GlobalMaxPool HardSigmoid Identity If InstanceNormalization "
    "LSTM LeakyRelu Loop LpPool MatMul MatMulInteger Max MaxPool Mean Min Mul Neg NonZero OneHot PRelu "
    "Pad Pow QLinearConv QLinearMatMul QuantizeLinear RandomNormal Range ReduceMax ReduceMean ReduceSum "
    "Relu Reshape Resize Round Scan Selu SequenceAt Shape Sigmoid Sign Size Slice Softmax SpaceToDepth "
    "Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Upsample Where Xor NoSuchOperator "
    "IntQuant Quant BipolarQuant Trunc QGemm QLinearAdd"
).split()
DOMAINS = (
    "",
    "ai.onnx",
    "com.microsoft",
    "qonnx.custom_op.general",
    "onnx.brevitas",
    "finn.custom_op.general",
    "ai.onnx.ml",
    "x",
)
ATTRIBUTES = (
    "axis axes kernel_shape strides pads dilations group auto_pad ceil_mode count_include_pad perm transA "
    "transB alpha beta keepdims epsilon allowzero block_size output_dtype saturate signed narrow "
    "rounding_mode storage_order to value channels_last mode"
).split()
DTYPES = tuple(TensorProto.DataType.values())


@cache
def seed_files() -> tuple[Path, ...]:
    """Those of tests/data that are small, and what was found before."""
    files = [*DATA.glob("*.onnx"), *FOUND.glob("*/*.onnx")]
    return tuple(sorted(p for p in files if p.stat().st_size <= LARGEST))


@cache
def read(path: Path) -> onnx.ModelProto | None:
    """With external data inside; None for what is no protobuf of a model."""
    try:
        return onnx.load(path)
    except Exception:
        return None


class Mutator:
    """A model, and edits of it, each by a generator of its own."""

    def __init__(self, model: onnx.ModelProto):
        self.model = onnx.ModelProto.FromString(model.SerializeToString())
        self.graph = self.model.graph

    def edit(self, rng: random.Random) -> str:
        """One edit; its name. What it needs may not be there: then it is nothing."""
        name = rng.choice(list(EDITS))
        EDITS[name](self, rng)
        return name

    # -- what there is ---------------------------------------------------------------------------------------
    def node(self, rng: random.Random) -> onnx.NodeProto | None:
        return rng.choice(self.graph.node) if self.graph.node else None

    def names(self) -> list[str]:
        """Of all tensors."""
        found = [v.name for v in self.graph.input] + [t.name for t in self.graph.initializer]
        return found + [o for n in self.graph.node for o in n.output]

    def constants(self) -> list[TensorProto]:
        inside = [a.t for n in self.graph.node for a in n.attribute if a.type == AttributeProto.TENSOR]
        return [*self.graph.initializer, *inside]

    def constant(self, rng: random.Random, small: bool = False) -> tuple[TensorProto, np.ndarray] | None:
        """A constant with its values."""
        found = self.constants()
        if not found:
            return None
        tensor = rng.choice(found)
        try:
            array = np.array(numpy_helper.to_array(tensor))
        except Exception:  # an edit before has made it none
            return None
        return tensor, array


def put(tensor: TensorProto, array: np.ndarray) -> None:
    """Other values, or another shape, of the same element type."""
    try:
        made = numpy_helper.from_array(np.ascontiguousarray(array), tensor.name)
    except Exception:  # a type that numpy has no array of
        return
    made.name = tensor.name
    tensor.CopyFrom(made)


# -- constants -----------------------------------------------------------------------------------------------------------
def values(m: Mutator, rng: random.Random) -> None:
    if not (found := m.constant(rng)) or not found[1].size:
        return
    tensor, array = found
    flat = array.reshape(-1)
    at = rng.choice((slice(None), rng.randrange(flat.size)))
    whole = np.issubdtype(flat.dtype, np.integer)
    with np.errstate(all="ignore"):
        if whole:
            info = np.iinfo(flat.dtype)
            flat[at] = rng.choice((info.min, info.max, 0, 1, int(np.clip(rng.choice(INTEGERS), info.min, info.max))))
        elif flat.dtype.kind == "f":
            flat[at] = rng.choice((*NUMBERS, rng.uniform(-3, 3)))
    put(tensor, array)


def scaled(m: Mutator, rng: random.Random) -> None:
    found = m.constant(rng)
    if found and found[1].dtype.kind == "f":
        with np.errstate(all="ignore"):
            put(found[0], found[1] * np.asarray(rng.choice((-1, 0, 0.5, 2, 1e-30, 1e30, 1.0001)), found[1].dtype))


def reshaped(m: Mutator, rng: random.Random) -> None:
    found = m.constant(rng)
    if not found:
        return
    tensor, array = found
    ways: list[Callable[[], np.ndarray]] = [
        lambda: array.reshape(-1),
        lambda: array[None],
        lambda: array.reshape(array.shape + (1,)),
        lambda: array[:0] if array.ndim else array,
        lambda: array[:1] if array.ndim else array.reshape(1),
        lambda: array.T,
        lambda: array.reshape(-1)[:1].reshape(()) if array.size else array,
        lambda: np.concatenate([array, array]) if array.ndim else np.stack([array, array]),
        lambda: np.squeeze(array),
    ]
    put(tensor, rng.choice(ways)())


def constant_dims(m: Mutator, rng: random.Random) -> None:
    """Of the header alone: the data no longer fit."""
    if tensors := m.constants():
        tensor = rng.choice(tensors)
        if tensor.dims and rng.random() < 0.7:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(DIMENSIONS)
        else:
            tensor.dims.append(rng.choice(DIMENSIONS))


def constant_type(m: Mutator, rng: random.Random) -> None:
    if not (tensors := m.constants()):
        return
    tensor = rng.choice(tensors)
    if rng.random() < 0.4:
        tensor.data_type = rng.choice(DTYPES)
        return
    try:
        array = numpy_helper.to_array(tensor)
        with np.errstate(all="ignore"):
            put(
                tensor,
                array.astype(
                    rng.choice((np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, bool))
                ),
            )
    except Exception:
        pass


def external(m: Mutator, rng: random.Random) -> None:
    """The data of a constant in another file, which is there or not."""
    if not (tensors := m.constants()):
        return
    tensor = rng.choice(tensors)
    tensor.data_location = TensorProto.EXTERNAL
    where = rng.choice(
        ("data.bin", "none.bin", "../data.bin", "/etc/hostname", "", ".", "/dev/zero", "a\nb", "data.bin/")
    )
    entries = {"location": where}
    if rng.random() < 0.6:
        entries["offset"] = str(rng.choice((0, 4, -1, 1 << 40, "x")))
    if rng.random() < 0.6:
        entries["length"] = str(rng.choice((0, 4, 1024, -1, 1 << 40, "")))
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


# -- nodes ---------------------------------------------------------------------------------------------------------------
def attribute_value(m: Mutator, rng: random.Random) -> None:
    node = m.node(rng)
    if node is None or not node.attribute:
        return
    a = rng.choice(node.attribute)
    if a.type == AttributeProto.INT:
        a.i = rng.choice(INTEGERS)
    elif a.type == AttributeProto.FLOAT:
        a.f = rng.choice(NUMBERS)
    elif a.type == AttributeProto.STRING:
        a.s = rng.choice(
            (b"", b"\xff\xfe", b"SAME_UPPER", b"VALID", b"NOTSET", b"FLOOR", b"ROUND", b"CEIL", b"x" * 500, b"a\nb")
        )
    elif a.type == AttributeProto.INTS:
        way = rng.choice(("one", "more", "less", "none"))
        if way == "one" and a.ints:
            a.ints[rng.randrange(len(a.ints))] = rng.choice(INTEGERS)
        elif way == "more":
            a.ints.append(rng.choice(INTEGERS))
        elif way == "less" and a.ints:
            del a.ints[-1]
        else:
            del a.ints[:]


def attribute_new(m: Mutator, rng: random.Random) -> None:
    node = m.node(rng)
    if node is None:
        return
    name = rng.choice((*ATTRIBUTES, rng.choice(NAMES)))
    value = rng.choice(
        (rng.choice(INTEGERS), [rng.choice(INTEGERS) for _ in range(rng.randint(1, 5))], 0.5, "SAME_UPPER", b"\xff")
    )
    kept = [a for a in node.attribute if a.name != name or rng.random() < 0.1]  # the same name twice, now and then
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def attribute_drop(m: Mutator, rng: random.Random) -> None:
    node = m.node(rng)
    if node is not None and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def attribute_type(m: Mutator, rng: random.Random) -> None:
    node = m.node(rng)
    if node is not None and node.attribute:
        rng.choice(node.attribute).type = rng.choice(AttributeProto.AttributeType.values())


def operator(m: Mutator, rng: random.Random) -> None:
    if (node := m.node(rng)) is not None:
        node.op_type = rng.choice((*OPERATORS, rng.choice(NAMES)))


def domain(m: Mutator, rng: random.Random) -> None:
    if (node := m.node(rng)) is not None:
        node.domain = rng.choice(DOMAINS)


def insert(m: Mutator, rng: random.Random) -> None:
    """An operator in the way of an input."""
    node = m.node(rng)
    if node is None or not node.input:
        return
    at, index = rng.randrange(len(node.input)), list(m.graph.node).index(node)
    op, name = rng.choice(OPERATORS), f"inserted{len(m.graph.node)}"
    others = [rng.choice(m.names()) for _ in range(rng.choice((0, 0, 1, 2)))]
    made = helper.make_node(op, [node.input[at], *others], [name], domain=rng.choice(("", "", "", rng.choice(DOMAINS))))
    for _ in range(rng.choice((0, 1))):
        made.attribute.append(
            helper.make_attribute(rng.choice(ATTRIBUTES), rng.choice((1, 0, -1, [1, 1], [0, 2, 1, 3])))
        )
    node.input[at] = name
    nodes = [*m.graph.node[:index], made, *m.graph.node[index:]]
    replace(m, nodes)


def replace(m: Mutator, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del m.graph.node[:]
    m.graph.node.extend(copies)


def swap_inputs(m: Mutator, rng: random.Random) -> None:
    node = m.node(rng)
    if node is not None and len(node.input) > 1:
        i, j = rng.sample(range(len(node.input)), 2)
        node.input[i], node.input[j] = node.input[j], node.input[i]


def rewire(m: Mutator, rng: random.Random) -> None:
    node = m.node(rng)
    if node is not None and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*m.names(), "", "nowhere"))


def input_count(m: Mutator, rng: random.Random) -> None:
    if (node := m.node(rng)) is None:
        return
    if node.input and rng.random() < 0.6:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input.append(rng.choice((*m.names(), "")))


def output_count(m: Mutator, rng: random.Random) -> None:
    if (node := m.node(rng)) is None:
        return
    if node.output and rng.random() < 0.3:
        del node.output[rng.randrange(len(node.output))]
    else:
        node.output.append(rng.choice((*m.names(), "", "another")))


def node_drop(m: Mutator, rng: random.Random) -> None:
    """With its readers reading what it read, or what nothing writes."""
    if (node := m.node(rng)) is None:
        return
    index = list(m.graph.node).index(node)
    if node.input and node.output and rng.random() < 0.7:
        bridge(m.graph, node)
    del m.graph.node[index]


def bridge(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """What reads `node` reads its first input."""
    for other in graph.node:
        other.input[:] = [node.input[0] if i == node.output[0] else i for i in other.input]
    for value in graph.output:
        if value.name == node.output[0]:
            value.name = node.input[0]


def node_twice(m: Mutator, rng: random.Random) -> None:
    if (node := m.node(rng)) is None:
        return
    index = rng.randint(0, len(m.graph.node))
    copy = onnx.NodeProto.FromString(node.SerializeToString())
    if rng.random() < 0.5:
        copy.output[:] = [f"{o}.again" for o in copy.output]
    replace(m, [*m.graph.node[:index], copy, *m.graph.node[index:]])


def reorder(m: Mutator, rng: random.Random) -> None:
    nodes = list(m.graph.node)
    if len(nodes) > 1:
        i, j = rng.sample(range(len(nodes)), 2)
        nodes[i], nodes[j] = nodes[j], nodes[i]
        replace(m, nodes)


# -- names, types, the whole -----------------------------------------------------------------------------------------------
def rename(m: Mutator, rng: random.Random) -> None:
    """A tensor everywhere: to something odd, or to another one's name."""
    names = m.names()
    if not names:
        return
    old = rng.choice(names)
    new = rng.choice((*NAMES, *NAMES, rng.choice(names), f"{rng.choice(names)}.on_grid", f"{rng.choice(names)}.1"))
    for node in m.graph.node:
        node.input[:] = [new if i == old else i for i in node.input]
        node.output[:] = [new if o == old else o for o in node.output]
    for value in (*m.graph.input, *m.graph.output, *m.graph.initializer, *m.graph.value_info):
        value.name = new if value.name == old else value.name


def node_name(m: Mutator, rng: random.Random) -> None:
    if (node := m.node(rng)) is not None:
        node.name = rng.choice((*NAMES, *(n.name for n in m.graph.node)))


def dimension(m: Mutator, rng: random.Random) -> None:
    """Of an input or output."""
    values = [*m.graph.input, *m.graph.output, *m.graph.value_info]
    if not values:
        return
    dims = rng.choice(values).type.tensor_type.shape.dim
    way = rng.choice(("value", "value", "name", "less", "more"))
    if way == "more" or not dims:
        dims.add(dim_value=rng.choice(DIMENSIONS))
    elif way == "less":
        del dims[rng.randrange(len(dims))]
    elif way == "name":
        rng.choice(dims).dim_param = rng.choice(("N", *NAMES[:6]))
    else:
        rng.choice(dims).dim_value = rng.choice(DIMENSIONS)


def element_type(m: Mutator, rng: random.Random) -> None:
    if values := [*m.graph.input, *m.graph.output, *m.graph.value_info]:
        rng.choice(values).type.tensor_type.elem_type = rng.choice(DTYPES)


def more_inputs(m: Mutator, rng: random.Random) -> None:
    shape = [rng.choice((1, 1, 2, "N")), *(rng.choice((1, 3, 8)) for _ in range(rng.randint(0, 3)))]
    name = rng.choice(("second", *m.names()[:3]))
    m.graph.input.append(helper.make_tensor_value_info(name, rng.choice((1, 1, 2, 3, 7, 10)), shape))


def outputs(m: Mutator, rng: random.Random) -> None:
    if m.graph.output and rng.random() < 0.3:
        del m.graph.output[rng.randrange(len(m.graph.output))]
    elif names := m.names():
        m.graph.output.append(onnx.ValueInfoProto(name=rng.choice(names)))


def opset(m: Mutator, rng: random.Random) -> None:
    if m.model.opset_import and rng.random() < 0.9:
        chosen = rng.choice(m.model.opset_import)
        chosen.version = rng.choice((1, 6, 7, 9, 10, 11, 12, 13, 14, 18, 19, 21, 22, 23, 25, 0, -1, 99, 1 << 40))
    elif rng.random() < 0.5:
        del m.model.opset_import[:]
    else:
        m.model.opset_import.append(helper.make_opsetid(rng.choice(DOMAINS), rng.choice((1, 2, 17))))


def ir_version(m: Mutator, rng: random.Random) -> None:
    m.model.ir_version = rng.choice((0, 1, 3, 4, 8, 12, 99, 1 << 40))


def functions(m: Mutator, rng: random.Random) -> None:
    """A node's operator becomes a local function, maybe one of functions, maybe one that calls itself."""
    if (node := m.node(rng)) is None or not node.input or not node.output:
        return
    names = [f"i{i}" for i in range(len(node.input))], [f"o{i}" for i in range(len(node.output))]
    inner = onnx.NodeProto.FromString(node.SerializeToString())
    inner.input[:], inner.output[:] = names
    body, count = [inner], rng.choice((1, 1, 3, 30))
    opsets = list(m.model.opset_import) + [helper.make_opsetid("local", 1)]
    for i in range(count):
        m.model.functions.append(helper.make_function("local", f"F{i}", *names, body, opsets))
        body = [helper.make_node(f"F{i}", *names, domain="local")]
        if rng.random() < 0.15:
            body = [helper.make_node(f"F{rng.randint(0, count)}", *names, domain="local")]
        elif rng.random() < 0.3:
            body = [*body, helper.make_node(f"F{i}", names[0], [f"{o}b" for o in names[1]], domain="local")]
    node.op_type, node.domain = f"F{count - 1}", "local"
    del node.attribute[:]
    m.model.opset_import.append(helper.make_opsetid("local", 1))


def subgraph(m: Mutator, rng: random.Random) -> None:
    """A node inside an If."""
    if (node := m.node(rng)) is None or not node.output:
        return
    outputs = [onnx.ValueInfoProto(name=o) for o in node.output]
    branch = helper.make_graph([onnx.NodeProto.FromString(node.SerializeToString())], "branch", [], outputs)
    name = f"condition{len(m.graph.initializer)}"
    m.graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), name))
    made = helper.make_node("If", [name], list(node.output), then_branch=branch, else_branch=branch)
    node.CopyFrom(made)


EDITS: dict[str, Callable[[Mutator, random.Random], None]] = {
    f.__name__: f
    for f in (
        values, scaled, reshaped, constant_dims, constant_type, external, attribute_value, attribute_new, attribute_drop,
        attribute_type, operator, domain, insert, swap_inputs, rewire, input_count, output_count, node_drop, node_twice,
        reorder, rename, node_name, dimension, element_type, more_inputs, outputs, opset, ir_version, functions, subgraph,
    )
}  # fmt: skip


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, or a piece cut out: mostly no protobuf any more."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        at = rng.randrange(len(data))
        if rng.random() < 0.3:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)
