"""Every operator on integer codes: contraction, pooling, view. Slow only where exactness asks for it.

All of them take (C, H, W) and give (O, HO, WO); `as_map` makes a map of a sequence (C, L) or a vector (C,). A conv1d is
a convolution over (C, 1, L); a dense layer one over (C, 1, 1), or over (C, H, W) with a kernel of H×W; a depthwise
convolution has groups = C.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.graph import Between, Picked
from mpcompile.ir.layer import ContractPart, ContractTerm, InterpolateTerm, PoolTerm, RearrangeTerm, Term, ViewTerm

INT32 = np.iinfo(np.int32)


def as_map(x: np.ndarray) -> np.ndarray:
    """(C,), (C, L) or (C, H, W) to (C, H, W), without copying. Raises ModelError at another rank."""
    if x.ndim == 3:
        return x
    if x.ndim == 2:
        return x[:, None, :]
    if x.ndim == 1:
        return x[:, None, None]
    raise ModelError(f"a layer takes (C,), (C, L) or (C, H, W), not the shape {x.shape}")


def term(t: Term, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """The value of a layer's term: int64 for integers, float32 for float tensors."""
    match t:
        case ContractTerm(parts):
            return fits_int32(reduce(np.add, (contract(tensors[p.input], p) for p in parts)))
        case PoolTerm(input):
            return pool(tensors[input], t)
        case ViewTerm(input, along):
            return view(tensors[input], along)
        case RearrangeTerm(input, order, whole, along):
            return view(tensors[input].reshape(-1)[order.indices()].reshape(whole), along)
        case InterpolateTerm(input, scale, lines, columns):
            return interpolate(as_map(tensors[input]).astype(np.float32) * np.float32(scale), lines, columns)
    raise TypeError(f"{type(t).__name__} is no term of a layer")


def contract(q_x: np.ndarray, part: ContractPart) -> np.ndarray:
    """Σ w·a, int64 [O, HO, WO]: a convolution of q_x int [C, H, W] with part.q; padding is q = 0.

    Raises ModelError where a sum does not fit int32, which is what kernels accumulate in.
    """
    o, per_group, kh, kw = part.q.shape
    g = part.groups
    if len(as_map(q_x)) != g * per_group or o % g:
        raise ModelError(f"weights of {part.q.shape} in {g} groups do not fit {len(as_map(q_x))} input channels")
    x = _windows(_pad(as_map(q_x), part.pads, 0), (kh, kw), part.strides, part.dilations)
    _, ho, wo, _, _ = x.shape
    x = x.reshape(g, per_group, ho, wo, kh, kw).transpose(0, 1, 4, 5, 2, 3)
    w = part.q.reshape(g, o // g, per_group * kh * kw)
    kind = _exact_type(part.q, q_x)
    columns = np.ascontiguousarray(x, kind).reshape(g, per_group * kh * kw, ho * wo)
    return fits_int32((w.astype(kind) @ columns).astype(np.int64).reshape(o, ho, wo))


def _exact_type(w: np.ndarray, a: np.ndarray) -> type:
    """The fastest type in which every partial sum of w·a is exact: float32, float64, else int64.

    Whole numbers below 2^24 (2^53) are exact in float32 (float64), in whatever order they are added.
    """
    largest = int(np.abs(w).reshape(len(w), -1).sum(1).max(initial=0)) * int(np.abs(a).max(initial=0))
    return np.float32 if largest < 1 << 24 else np.float64 if largest < 1 << 53 else np.int64


def fits_int32(acc: np.ndarray) -> np.ndarray:
    """`acc` itself. Raises ModelError where it leaves int32."""
    if acc.size and (acc.min() < INT32.min or acc.max() > INT32.max):
        worst = max(int(acc.max()), int(acc.min()), key=abs)
        raise ModelError(f"a sum of {worst} does not fit the accumulators' {INT32.min}..{INT32.max}")
    return acc


def pool(x: np.ndarray, t: PoolTerm) -> np.ndarray:
    """Max or sum over windows of [C, H, W]: int64 for integers, else float32, added in order of kh, then kw, from 0.0.

    Padding is left out of a max and adds 0 to a sum. Raises ModelError at a max over padding alone, which is nothing.
    """
    x = as_map(x)
    integer = x.dtype.kind in "iu"
    x = x.astype(np.int64 if integer else np.float32)
    if t.kind == "max":
        nothing = np.iinfo(np.int64).min if integer else np.float32(-np.inf)
        _no_empty_window(x.shape[1:], t)
        return _windows(_pad(x, t.pads, nothing), t.kernel, t.strides, (1, 1)).max((-2, -1))
    windows = _windows(_pad(x, t.pads, 0), t.kernel, t.strides, (1, 1))
    total = np.zeros(windows.shape[:3], x.dtype)
    for i in range(t.kernel[0]):
        for j in range(t.kernel[1]):
            total = total + windows[..., i, j]
    return fits_int32(total) if integer else total


def view(x: np.ndarray, along: tuple[Picked, Picked, Picked] | None = None) -> np.ndarray:
    """The tensor itself as a map, or what `along` picks of it: int64 for integers, else float32."""
    picked = as_map(x) if along is None else as_map(x)[np.ix_(*(a.indices() for a in along))]
    return picked.astype(np.int64 if x.dtype.kind in "iu" else np.float32)


def interpolate(x: np.ndarray, lines: Between, columns: Between) -> np.ndarray:
    """float32 (C, H, W) of float32 x: each pixel of four of x, products and sums in the order that ir.graph.Interpolate
    says."""
    total = None
    for at_y, of_y in ((lines.first, lines.of_first), (lines.second, lines.of_second)):
        for at_x, of_x in ((columns.first, columns.of_first), (columns.second, columns.of_second)):
            weight = of_y[:, None] * of_x[None, :]
            part = weight * x[:, at_y][:, :, at_x]
            total = part if total is None else total + part
    assert total is not None and total.dtype == np.float32
    return total


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Length of a convolution's or pooling's output along one axis (0 or less: the kernel does not fit)."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def _pad(x: np.ndarray, pads: tuple[int, int, int, int], value) -> np.ndarray:
    """[C, H, W] with `pads` = (top, left, bottom, right) of `value` around."""
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=value)


def _windows(x: np.ndarray, kernel, strides, dilations) -> np.ndarray:
    """A view [C, HO, WO, KH, KW] of [C, H, W]. Raises ModelError where the kernel is larger than the map."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations))
    if reach[0] > x.shape[1] or reach[1] > x.shape[2]:
        raise ModelError(
            f"a kernel that reaches {reach[0]}x{reach[1]} does not fit a padded map of {x.shape[1]}x{x.shape[2]}"
        )
    every = np.lib.stride_tricks.sliding_window_view(x, reach, (1, 2))
    return every[:, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _no_empty_window(size: tuple[int, int], t: PoolTerm) -> None:
    top, left, bottom, right = t.pads
    for n, k, s, before, after in (
        (size[0], t.kernel[0], t.strides[0], top, bottom),
        (size[1], t.kernel[1], t.strides[1], left, right),
    ):
        last = (output_size(n, k, s, before, after) - 1) * s
        if before >= k or last >= before + n:
            raise ModelError(f"a max pooling of {k} with padding {before}, {after} has windows that hold padding only")
