"""Nodes with weights → torch's layers, which hold them as parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mpcompile.search.trace.onnx_file.node import FileNode, tensor

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
PADDING = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def convolution(node: FileNode) -> tuple[nn.Module | None, nn.Module]:
    """And, where pads differ before and after an axis, what pads before it."""
    weight, bias = node.constants[1], node.constant(2, "bias")
    axes = weight.ndim - 2
    if axes not in CONVOLUTIONS:
        raise node.refused(f"it has {axes} spatial axes; 1, 2 or 3 would be accepted")
    groups = node.attribute("group", 1)
    pads = pads_of(node, weight.shape[2:])
    even = pads[:axes] == pads[axes:]
    made = CONVOLUTIONS[axes](
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        stride=node.attribute("strides", [1] * axes),
        padding=pads[:axes] if even else 0,
        dilation=node.attribute("dilations", [1] * axes),
        groups=groups,
        bias=bias is not None,
    )
    _load(made, weight, bias)
    return None if even else padding(pads, 0.0), made


def transposed(node: FileNode) -> nn.Module:
    weight, bias = node.constants[1], node.constant(2, "bias")
    axes = weight.ndim - 2
    pads = tuple(node.attribute("pads", [0] * 2 * axes))
    if axes not in TRANSPOSED or pads[:axes] != pads[axes:] or node.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise node.refused("even pads of 1, 2 or 3 axes would be accepted")
    if "output_shape" in node.attributes:
        raise node.refused("it has an output_shape; pads and output_padding would be accepted")
    groups = node.attribute("group", 1)
    made = TRANSPOSED[axes](
        weight.shape[0],
        weight.shape[1] * groups,
        weight.shape[2:],
        stride=node.attribute("strides", [1] * axes),
        padding=pads[:axes],
        output_padding=node.attribute("output_padding", [0] * axes),
        dilation=node.attribute("dilations", [1] * axes),
        groups=groups,
        bias=bias is not None,
    )
    _load(made, weight, bias)
    return made


def linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    """`weight`: [outputs, inputs]."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    _load(made, weight, None if bias is None else np.broadcast_to(bias.reshape(-1), weight.shape[:1]))
    return made


def batch_norm(node: FileNode) -> nn.Module:
    rank = len(node.shape(0))
    if rank not in NORMS or node.attribute("training_mode", 0):
        raise node.refused("one in inference mode over 2 to 5 axes would be accepted")
    scale, bias, mean, variance = (node.constants[i] for i in (1, 2, 3, 4))
    made = NORMS[rank](len(scale), eps=node.attribute("epsilon", 1e-5))
    _load(made, scale, bias)
    with torch.no_grad():
        made.get_buffer("running_mean").copy_(tensor(mean))
        made.get_buffer("running_var").copy_(tensor(variance))
    return made


def layer_norm(node: FileNode) -> nn.Module:
    scale, bias = node.constant(1, "scale"), node.constant(2, "bias")
    rank, axis = len(node.shape(0)), node.attribute("axis", -1)
    if scale is None or scale.ndim != rank - axis % rank:
        raise node.refused("a scale of the axes that are normalised would be accepted")
    made = nn.LayerNorm(list(scale.shape), eps=node.attribute("epsilon", 1e-5), bias=bias is not None)
    _load(made, scale, bias)
    return made


def pads_of(node: FileNode, kernel: Sequence[int]) -> tuple[int, ...]:
    """Of all axes before, then of all axes after, as ONNX has them; auto_pad resolved by the input's shape."""
    axes = len(kernel)
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return tuple(node.attribute("pads", [0] * 2 * axes)) if auto == "NOTSET" else (0,) * 2 * axes
    strides, dilations = node.attribute("strides", [1] * axes), node.attribute("dilations", [1] * axes)
    before, after = [], []
    for size, k, s, d in zip(node.sizes(0), kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return (*before, *after)


def padding(pads: Sequence[int], value: float) -> nn.Module:
    return PADDING[len(pads) // 2](around(pads), value)


def around(pads: Sequence[int]) -> tuple[int, ...]:
    """ONNX's pads as torch has them: the last axis first, before and after each."""
    axes = len(pads) // 2
    return tuple(n for axis in reversed(range(axes)) for n in (pads[axis], pads[axes + axis]))


def _load(module: nn.Module, weight: np.ndarray, bias: np.ndarray | None) -> None:
    with torch.no_grad():
        module.get_parameter("weight").copy_(tensor(weight))
        if bias is not None:
            module.get_parameter("bias").copy_(tensor(bias))
