"""Nodes without weights → modules. Each maker takes a node of an opset from 17 on and returns what computes it from the
inputs that are no constants; all work on any number of samples, whatever batch the file was written for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpcompile.search.trace.onnx_file.layers import around, padding, pads_of
from mpcompile.search.trace.onnx_file.node import FileNode, Operator, tensor

Maker = Callable[[FileNode], nn.Module]


# -- functions of single numbers ----------------------------------------------------------------------
def _clip(node: FileNode) -> nn.Module:
    ends = [node.constant(i, what) for i, what in ((1, "min"), (2, "max"))]
    low, high = (None if end is None else float(end.reshape(-1)[0]) for end in ends)
    if (low, high) == (0.0, 6.0):
        return nn.ReLU6()
    if low == 0.0 and high is None:
        return nn.ReLU()
    if low is not None and high is not None and low >= high:
        raise node.refused(f"its min {low:g} is not below its max {high:g}")
    return nn.Hardtanh(-torch.inf if low is None else low, torch.inf if high is None else high)


def _hard_sigmoid(node: FileNode) -> nn.Module:
    slope, offset = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and offset == 0.5:
        return nn.Hardsigmoid()
    return Operator(lambda x: (x * slope + offset).clamp(0.0, 1.0))


def _prelu(node: FileNode) -> nn.Module:
    slope, shape = node.constant(1, "slope"), node.shape(0)
    channels = shape[1] if len(shape) > 1 else None
    if slope is None or slope.size not in (1, channels) or (slope.size > 1 and slope.shape[0] != channels):
        raise node.refused("a slope for each channel, or one, would be accepted")
    made = nn.PReLU(slope.size)
    with torch.no_grad():
        made.weight.copy_(tensor(slope.reshape(-1)))
    return made


def _dropout(node: FileNode) -> nn.Module:
    training = node.constant(2, "training_mode")
    if training is not None and training.any():
        raise node.refused("one in inference mode would be accepted")
    return nn.Identity()


def _cast(node: FileNode) -> nn.Module:
    if node.attribute("to") != 1:
        raise node.refused("a cast to FLOAT would be accepted")
    return nn.Identity()


# -- of several tensors ---------------------------------------------------------------------------------
def _elementwise(function: Callable[..., Tensor]) -> Maker:
    def make(node: FileNode) -> nn.Module:
        return Operator(_Folded(function), {i: tensor(c) for i, c in node.constants.items()})

    return make


class _Folded:
    """Of two tensors, or of more from the left."""

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function

    def __call__(self, *values: Tensor) -> Tensor:
        return reduce(self.function, values)


def _mean(*values: Tensor) -> Tensor:
    return reduce(torch.add, values) / len(values)


def _concat(node: FileNode) -> nn.Module:
    axis, rank = node.attribute("axis"), len(node.shape(0))
    axis += rank if axis < 0 else 0
    first = next((i for i in range(len(node.inputs)) if i not in node.constants), None)
    if first is None or axis == 0:
        raise node.refused("it joins samples")

    def join(*values: Tensor) -> Tensor:
        batch = values[first].shape[0]
        same = [v if i not in node.constants else v.expand(batch, *v.shape[1:]) for i, v in enumerate(values)]
        return torch.cat(same, axis)

    constants = {}
    for i, array in node.constants.items():
        if (array != array[:1]).any():
            raise node.refused("a constant that is joined differs from sample to sample")
        constants[i] = tensor(array[:1])
    return Operator(join, constants)


def _matmul(node: FileNode) -> nn.Module:
    return Operator(torch.matmul, {i: tensor(c) for i, c in node.constants.items()})


def _gemm(node: FileNode) -> nn.Module:
    turned = node.attribute("transA", 0), node.attribute("transB", 0)
    factors = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = factors[0] * ((a.T if turned[0] else a) @ (b.T if turned[1] else b))
        return product if c is None else product + factors[1] * c

    return Operator(compute, {i: tensor(c) for i, c in node.constants.items()})


# -- over windows ---------------------------------------------------------------------------------------
def _max_pool(node: FileNode) -> nn.Module:
    kernel = node.attribute("kernel_shape")
    pads, axes = pads_of(node, kernel), len(kernel)
    pool: Any = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    options = {"dilation": node.attribute("dilations", [1] * axes), "ceil_mode": bool(node.attribute("ceil_mode", 0))}
    even = pads[:axes] == pads[axes:] and all(2 * p <= k for p, k in zip(pads, kernel))
    made = pool(kernel, node.attribute("strides", [1] * axes), padding=pads[:axes] if even else 0, **options)
    return made if even else nn.Sequential(padding(pads, -torch.inf), made)


def _average_pool(node: FileNode) -> nn.Module:
    kernel = node.attribute("kernel_shape")
    pads, axes = pads_of(node, kernel), len(kernel)
    counted = bool(node.attribute("count_include_pad", 0)) or not any(pads)
    even = pads[:axes] == pads[axes:] and all(2 * p <= k for p, k in zip(pads, kernel))
    if not (even or counted) or any(d != 1 for d in node.attribute("dilations", [])):
        raise node.refused("even pads, and no dilation, would be accepted")
    pool: Any = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[axes - 1]
    options = {"ceil_mode": bool(node.attribute("ceil_mode", 0)), "count_include_pad": counted}
    made = pool(kernel, node.attribute("strides", [1] * axes), padding=pads[:axes] if even else 0, **options)
    return made if even else nn.Sequential(padding(pads, 0.0), made)


def _global(pools: tuple[Any, ...]) -> Maker:
    return lambda node: pools[len(node.shape(0)) - 3](1)


def _reduced(function: Callable[..., Tensor]) -> Maker:
    def make(node: FileNode) -> nn.Module:
        rank = len(node.shape(0))
        axes = node.integers("axes", 1)
        axes = tuple(range(rank)) if not axes else tuple(a % rank for a in axes)
        if 0 in axes:
            raise node.refused("it reduces over samples")
        return Operator(partial(function, dim=axes, keepdim=bool(node.attribute("keepdims", 1))))

    return make


# -- that move numbers ----------------------------------------------------------------------------------
def _reshape(node: FileNode) -> nn.Module:
    """Samples are outermost on both sides, so that whatever their number is, the leading size follows from the others."""
    target = node.shapes.get(node.outputs[0])
    if target is None or any(n is None for n in target[1:]):
        raise node.refused("the shape that it makes is not known")
    return Operator(lambda x: x.reshape(-1, *target[1:]))


def _flatten(node: FileNode) -> nn.Module:
    return nn.Flatten(1) if node.attribute("axis", 1) == 1 else _reshape(node)


def _squeeze(node: FileNode) -> nn.Module:
    rank = len(node.shape(0))
    axes = node.integers("axes", 1)
    found = [a for a, n in enumerate(node.shape(0)) if n == 1 and a] if axes is None else [a % rank for a in axes]
    return Operator(lambda x: x.squeeze(tuple(found)))


def _unsqueeze(node: FileNode) -> nn.Module:
    rank = len(node.shape(0))
    axes = node.integers("axes", 1) or ()
    found = sorted(a % (rank + len(axes)) for a in axes)
    return Operator(lambda x: reduce(torch.unsqueeze, found, x))


def _transpose(node: FileNode) -> nn.Module:
    rank = len(node.shape(0))
    order = tuple(node.attribute("perm", list(reversed(range(rank)))))
    return Operator(lambda x: x.permute(order))


def _split(node: FileNode) -> nn.Module:
    axis, shape = node.attribute("axis", 0), node.shape(0)
    sizes, whole = node.integers("split", 1), shape[axis]
    if sizes is None:
        parts = node.attribute("num_outputs", len(node.outputs))
        if whole is None:
            raise node.refused("the shape that it splits is not known")
        size = -(-whole // parts)
        sizes = (*(size,) * (parts - 1), whole - size * (parts - 1))
    if axis % len(shape) == 0:
        raise node.refused("it splits samples")
    return Operator(lambda x: torch.split(x, list(sizes), axis))


def _slice(node: FileNode) -> nn.Module:
    starts, ends = node.integers("starts", 1), node.integers("ends", 2)
    assert starts is not None and ends is not None  # ONNX says so
    axes, steps = node.integers("axes", 3) or tuple(range(len(starts))), node.integers("steps", 4) or (1,) * len(starts)
    shape = node.shape(0)
    picks: list[tuple[int, slice | list[int]]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape)
        size = shape[axis]
        if size is None:
            raise node.refused(f"the size of axis {axis} is not known")
        kept = range(size)[start:end:step]
        if axis == 0 and len(kept) != size:
            raise node.refused("it picks samples")
        picks.append((axis, slice(kept.start, kept.stop, step) if step > 0 else list(kept)))

    def pick(x: Tensor) -> Tensor:
        for axis, at in picks:
            if axis:
                x = x[(slice(None),) * axis + (at,)]
        return x

    return Operator(pick)


def _gather(node: FileNode) -> nn.Module:
    indices, axis = node.constant(1, "indices"), node.attribute("axis", 0)
    shape = node.shape(0)
    axis %= len(shape)
    size = shape[axis]
    if indices is None or indices.ndim > 1 or axis == 0 or size is None:
        raise node.refused("constant indices along an axis of one sample would be accepted")
    if indices.ndim == 0:
        return Operator(lambda x: x.select(axis, int(indices) % size))
    return Operator(lambda x, at: x.index_select(axis, at), {1: tensor(indices % size)})


def _pad(node: FileNode) -> nn.Module:
    pads, mode = node.integers("pads", 1), node.attribute("mode", "constant")
    axes, rank = node.integers("axes", 3), len(node.shape(0))
    assert pads is not None  # ONNX says so
    whole = [0] * 2 * rank
    for at, axis in enumerate(range(rank) if axes is None else axes):
        whole[axis % rank] = pads[at]
        whole[rank + axis % rank] = pads[at + len(pads) // 2]
    if whole[0] or whole[rank]:
        raise node.refused("it pads samples")
    value = node.constant(2, "value")
    torch_mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    if mode == "constant":
        return Operator(partial(F.pad, pad=around(whole), value=0.0 if value is None else float(value.reshape(-1)[0])))
    if whole[1] or whole[rank + 1]:
        raise node.refused(f"it pads channels in mode {mode}")
    inner = [*whole[2:rank], *whole[rank + 2 :]]
    return Operator(partial(F.pad, pad=around(inner), mode=torch_mode))


def _expand(node: FileNode) -> nn.Module:
    target = node.shapes.get(node.outputs[0])
    if target is None or any(n is None for n in target[1:]) or len(target) != len(node.shape(0)):
        raise node.refused("a known shape of as many axes would be accepted")
    return Operator(lambda x: x.expand(-1, *target[1:]))


def _resize(node: FileNode) -> nn.Module:
    """What torch's Upsample computes alike: ONNX's has more coordinates, and scales that no size follows from."""
    mode, where = node.attribute("mode", "nearest"), node.attribute("coordinate_transformation_mode", "half_pixel")
    target = node.shapes.get(node.outputs[0])
    if target is None or len(target) < 3 or any(n is None for n in target[2:]):
        raise node.refused("the shape that it makes is not known")
    size, before = tuple(n for n in target[2:] if n is not None), node.sizes(0)
    if target[1] != node.shape(0)[1]:
        raise node.refused("it resizes channels")
    scales = node.constant(2, "scales")
    if scales is not None and scales.size and any(n != b * k for n, b, k in zip(size, before, scales[2:].tolist())):
        raise node.refused("scales by which sizes become whole ones would be accepted")
    if mode == "nearest":
        rounding = node.attribute("nearest_mode", "round_prefer_floor")
        whole = all(n % b == 0 for n, b in zip(size, before))
        near = where == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil") and whole
        if not near and (where, rounding) != ("asymmetric", "floor"):
            raise node.refused(
                "half_pixel by a whole factor and to the nearest, or asymmetric and floor, would be accepted"
            )
        return nn.Upsample(size=size, mode="nearest")
    corners = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}.get(where)
    if corners is None or node.attribute("antialias", 0) or (where != "half_pixel" and 1 in size):
        raise node.refused("half_pixel or align_corners, without antialias, would be accepted")
    if mode == "cubic" and (node.attribute("cubic_coeff_a", -0.75) != -0.75 or node.attribute("exclude_outside", 0)):
        raise node.refused("cubic with a coefficient of -0.75, nothing excluded, would be accepted")
    kinds = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
    if (mode, len(size)) not in kinds:
        raise node.refused(f"mode {mode} over {len(size)} axes")
    return nn.Upsample(size=size, mode=kinds[mode, len(size)], align_corners=corners)


def _depth_to_space(node: FileNode) -> nn.Module:
    block = node.attribute("blocksize")
    if node.attribute("mode", "DCR") == "CRD":
        return nn.PixelShuffle(block)

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // block**2, h * block, w * block)

    return Operator(move)


def _space_to_depth(node: FileNode) -> nn.Module:
    block = node.attribute("blocksize")

    def move(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, c * block**2, h // block, w // block)

    return Operator(move)


def _softmax(kind: Any) -> Maker:
    return lambda node: kind(dim=node.attribute("axis", -1))


def _fixed(make: Callable[[], nn.Module]) -> Maker:
    return lambda node: make()


def _function(function: Callable[..., Any]) -> Maker:
    return lambda node: Operator(function)


MAKERS: dict[str, Maker] = {
    "Relu": _fixed(nn.ReLU),
    "Sigmoid": _fixed(nn.Sigmoid),
    "Tanh": _fixed(nn.Tanh),
    "HardSwish": _fixed(nn.Hardswish),
    "Mish": _fixed(nn.Mish),
    "Softplus": _fixed(nn.Softplus),
    "Softsign": _fixed(nn.Softsign),
    "Identity": _fixed(nn.Identity),
    "Dropout": _dropout,
    "Cast": _cast,
    "Elu": lambda node: nn.ELU(node.attribute("alpha", 1.0)),
    "Celu": lambda node: nn.CELU(node.attribute("alpha", 1.0)),
    "LeakyRelu": lambda node: nn.LeakyReLU(node.attribute("alpha", 0.01)),
    "Gelu": lambda node: nn.GELU(node.attribute("approximate", "none")),
    "PRelu": _prelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Erf": _function(torch.erf),
    "Exp": _function(torch.exp),
    "Log": _function(torch.log),
    "Sqrt": _function(torch.sqrt),
    "Abs": _function(torch.abs),
    "Neg": _function(torch.neg),
    "Reciprocal": _function(torch.reciprocal),
    "Softmax": _softmax(nn.Softmax),
    "LogSoftmax": _softmax(nn.LogSoftmax),
    "Add": _elementwise(torch.add),
    "Sum": _elementwise(torch.add),
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Div": _elementwise(torch.div),
    "Pow": _elementwise(torch.pow),
    "Max": _elementwise(torch.maximum),
    "Min": _elementwise(torch.minimum),
    "Mean": lambda node: Operator(_mean, {i: tensor(c) for i, c in node.constants.items()}),
    "Concat": _concat,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)),
    "GlobalMaxPool": _global((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
