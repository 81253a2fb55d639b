"""Operators that pick elements along each axis alone (slices, parts of a split, upsampling to the nearest), as views: a
quantized tensor's stay quantized."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

from mpcompile.frontend.floatop import evaluated, single_node
from mpcompile.frontend.importer import UNQUANTIZED, Fallback, Importer, Source, operator
from mpcompile.frontend.limits import MOST_FOLDED
from mpcompile.frontend.moved import follow
from mpcompile.frontend.rows import MOST_AXES, in_layers
from mpcompile.frontend.values import Activation, Constant
from mpcompile.ir.graph import Along, Between, Concat, Interpolate, Listed, Picked, View

UNEVEN = Fallback("it does not pick elements along each axis by itself, or of a concat not in order")
MOST_LISTED = 1 << 16
"""Elements of an axis that are picked one by one."""


def pattern(indices: np.ndarray) -> Along | None:
    """`indices` as start + step·(i // repeat), or None."""
    size, start = len(indices), int(indices[0])
    changes = np.flatnonzero(np.diff(indices))
    repeat = int(changes[0]) + 1 if len(changes) else size
    step = int(indices[repeat]) - start if repeat < size else 1
    made = Along(size, start, step, repeat)
    return made if np.array_equal(made.indices(), indices) else None


def picking(indices: np.ndarray) -> Picked | None:
    """`indices` as a pattern, else listed; None where these are too many."""
    listed = Listed(tuple(int(i) for i in indices)) if len(indices) <= MOST_LISTED else None
    return pattern(indices) or listed


def view(imp: Importer, node: Source, tensor: str, along: tuple[Picked, ...], output: str) -> str:
    """Emits a View that writes `output`; its name. `tensor` itself where all of it is picked in order."""
    kind = imp.type(tensor)
    if all(a == Along(n) for a, n in zip(along, kind.shape)):
        return tensor
    made = View(imp.unique(f"{node.name}.view"), [tensor], [output], along)
    return imp.emit(made, tuple(a.size for a in along), kind.quantizer)


@operator("Slice", "Split", "Gather", "Tile", "Expand")
def pick(imp: Importer, node: Source):
    """Which elements: found by running the operator on the numbers of its input's elements."""
    shape = imp.shape(imp.value(node, 0))
    others = [i for i in range(1, node.count) if node.has(i)]
    if math.prod(shape) > MOST_FOLDED or not all(isinstance(imp.value(node, i), Constant) for i in others):
        return Fallback("what it picks is computed at run time, or too much")
    name = node.input_name(0)
    constants = {node.input_name(i): imp.constant(node, i, "parameter", integer=True) for i in others}
    model = single_node(imp, node, constants, {name: shape}, [o for o in node.outputs if o])
    numbers = np.arange(math.prod(shape)).reshape(shape)
    results = evaluated(model, {name: numbers})
    if isinstance(results, Fallback):
        return results
    written = [o for o in node.outputs if o]
    for output, picks in zip(written, results):
        if np.shape(picks)[:1] == (1,):
            follow(imp, node, lambda numbers, of=picks: numbers.reshape(-1)[of[0]], output)
    found = [along_axes(n, shape) for n in results]
    if any(along is None for along in found):
        return UNEVEN
    return picked(imp, node, {o: along for o, along in zip([o for o in node.outputs if o], found) if along})


def along_axes(numbers, shape: tuple[int, ...]) -> tuple[Picked, ...] | None:
    """Per axis behind the batch, which indices `numbers` (of the elements of a tensor of `shape`) pick; None where axes
    are not picked each by itself."""
    numbers = np.asarray(numbers)
    if numbers.ndim != len(shape) or numbers.shape[0] != 1 or not numbers.size:
        return None
    index = np.unravel_index(numbers, shape)
    lines = [
        index[axis][tuple(slice(None) if a == axis else 0 for a in range(numbers.ndim))] for axis in range(len(shape))
    ]
    if not np.array_equal(np.ravel_multi_index(np.ix_(*lines), shape), numbers):
        return None
    found = [picking(line) for line in lines[1:]]
    return None if any(a is None for a in found) else tuple(a for a in found if a)


@operator("Resize", "Upsample")
def resize(imp: Importer, node: Source):
    """To the nearest, or bilinear."""
    before = imp.shape(imp.value(node, 0))
    how = node.attribute("mode", "nearest")
    if how not in ("nearest", "linear", "bilinear") or node.attribute("antialias", 0):
        return Fallback("it interpolates, and not bilinearly")
    after, scales = target_size(imp, node, before)
    if after is None or len(after) != len(before) or after[0] != before[0]:
        return Fallback("its sizes are computed at run time, or along axes that it names")
    mode = node.attribute("coordinate_transformation_mode", "half_pixel" if imp.opset > 10 else "asymmetric")
    if how != "nearest" and not (mode != "tf_crop_and_resize" and _copies(before, after, scales)):
        return interpolated(imp, node, before, after, scales, mode)
    rounding = node.attribute("nearest_mode", "round_prefer_floor" if imp.opset > 10 else "floor")
    along = []
    for old, new, scale in zip(before[1:], after[1:], scales[1:]):
        at = nearest(old, new, scale, mode, rounding)
        found = None if at is None else picking(at)
        if found is None:
            return UNEVEN
        along.append(found)
    return picked(imp, node, {node.outputs[0]: tuple(along)})


def _copies(before, after, scales: list[float]) -> bool:
    """Whether along each axis there is one element to interpolate between, or nothing is."""
    return all(old == 1 or (new == old and scale == 1) for old, new, scale in zip(before, after, scales))


def target_size(imp: Importer, node: Source, before) -> tuple[tuple[int, ...] | None, list[float]]:
    """(sizes, scales) along all axes of a Resize or Upsample; (None, []) where they are not constants, or for some axes
    only."""
    given = imp.real_constant(node, node.count - 1) if node.count > 1 and node.has(node.count - 1) else None
    if given is None:
        given = np.array(node.attribute("scales", []), np.float64)
    if (
        given.size != len(before)
        or node.attribute("axes", None)
        or node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        return None, []
    if node.op_type == "Resize" and node.count == 4:  # sizes
        return tuple(int(n) for n in given), [float(n) / old for n, old in zip(given, before)]
    return tuple(math.floor(old * s) for old, s in zip(before, given)), [float(s) for s in given]


def interpolated(imp: Importer, node: Source, before, after, scales: list[float], mode: str):
    """A bilinear Resize of a quantized map, as ONNX Runtime computes it in float32; what comes out is on no grid. A
    Fallback where the input is no such map, or the coordinates have no definition here."""
    source = imp.quantized(node, 0)
    if source is None or (source.factor != 1).any():
        return UNQUANTIZED
    if len(before) != 4 or after[1] != before[1]:
        return Fallback("it interpolates along other axes than those of a map")
    axes = [between(*sizes, mode) for sizes in zip(before[2:], after[2:], scales[2:])]
    if None in axes:
        return Fallback(f"it takes its coordinates by {mode}")
    lines, columns = axes
    assert lines and columns
    shape = (after[1], *after[2:])
    parts = imp.mixed_parts(source.tensor)
    if parts is None:
        imp.write(node, Interpolate(node.name, [source.tensor], [node.outputs[0]], lines, columns), shape)
        return None
    made = []
    for i, part in enumerate(parts):
        name = imp.unique(f"{node.outputs[0]}.{i}")
        one = Interpolate(imp.unique(f"{node.name}.{i}"), [part], [name], lines, columns)
        made.append(imp.emit(one, (imp.type(part).shape[0], *after[2:])))
    imp.write(node, Concat(node.name, made, [node.outputs[0]]), shape)
    return None


def between(old: int, new: int, scale: float, mode: str) -> Between | None:
    """Where the elements of an axis of `new` lie among those of one of `old`, in float32 as ONNX Runtime has it; None in a
    mode that has no definition here. At the last element, both that it lies between are the last, half of each."""
    one, half, by = np.float32(1), np.float32(0.5), np.float32(scale)
    i = np.arange(new, dtype=np.float32)
    if scale == 1:
        x = i
    elif mode == "asymmetric":
        x = i / by
    elif mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        x = (i + half) / by - half
    elif mode == "align_corners" and new > 1:
        x = i * (np.float32(old) - one) / (np.float32(new) - one)
    elif mode in ("align_corners", "pytorch_half_pixel"):
        x = i * 0
    else:
        return None
    x = np.clip(x, np.float32(0), np.float32(old - 1))
    first = np.minimum(x.astype(np.int32), old - 1)
    second = np.minimum(first + 1, old - 1)
    of_second, of_first = np.abs(x - first.astype(np.float32)), np.abs(x - second.astype(np.float32))
    alone = first == second
    return Between(first, second, *(np.where(alone, half, w).astype(np.float32) for w in (of_first, of_second)))


def nearest(old: int, new: int, scale: float, mode: str, rounding: str) -> np.ndarray | None:
    """int64 [new]: the pixel that each pixel of a Resize to the nearest takes, as ONNX defines it; None in a mode without
    such a definition here."""
    i = np.arange(new)
    if mode == "asymmetric":
        x = i / scale
    elif mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        x = (i + 0.5) / scale - 0.5
    elif mode == "align_corners" and new > 1:
        x = i * (old - 1) / (new - 1)
    elif mode in ("align_corners", "pytorch_half_pixel"):
        x = i * 0.0
    else:
        return None
    down, up = np.floor(x), np.ceil(x)
    taken = {
        "floor": down,
        "ceil": up,
        "round_prefer_floor": np.where(x - down <= 0.5, down, up),
        "round_prefer_ceil": np.where(x - down < 0.5, down, up),
    }.get(rounding)
    return None if taken is None else np.clip(taken, 0, old - 1).astype(np.int64)


def picked(imp: Importer, node: Source, wanted: dict[str, tuple[Picked, ...]]):
    """Views of input 0, a quantized tensor, a concat of such, or what a layer computes: output → what it picks. A Fallback
    where the input is none of these, or has more axes than a map."""
    source, held = imp.quantized(node, 0), imp.value(node, 0)
    if source is not None and (source.factor == 1).all():
        tensor = source.tensor
    elif isinstance(held, Activation) and held.tensor not in imp.whole and in_layers(imp, held.tensor):
        tensor = held.tensor
    else:
        return UNQUANTIZED
    if len(imp.type(tensor).shape) > MOST_AXES:
        return Fallback("its input has more axes than a map")
    parts = imp.mixed_parts(tensor) or [tensor]
    channels = [imp.type(t).shape[0] for t in parts]
    ends = list(accumulate(channels))
    made: dict[str, str] = {}
    for output, along in wanted.items():
        slices = [of_slice(along, end - n, end) for n, end in zip(channels, ends)]
        if any(s is None for s in slices):
            return UNEVEN
        read = [(t, s) for t, s in zip(parts, slices) if s]
        if len(read) == 1:
            made[output] = view(imp, node, read[0][0], read[0][1], imp.unique(output))
            continue
        views = [view(imp, node, t, s, imp.unique(f"{output}.{i}")) for i, (t, s) in enumerate(read)]
        shape = (along[0].size, *(a.size for a in along[1:]))
        made[output] = imp.emit(Concat(imp.unique(f"{node.name}.concat"), views, [imp.unique(output)]), shape)
    for output, tensor in made.items():
        imp.values[output] = Activation(tensor)


def of_slice(along: tuple[Picked, ...], start: int, end: int) -> tuple[Picked, ...] | None:
    """What `along` picks of the channels start..end−1 of a concat, as a view of these; () of none; None where its
    channels come in another order than they lie, but all from there."""
    first, *rest = along
    indices = first.indices()
    inside = (indices >= start) & (indices < end)
    if inside.all():
        if isinstance(first, Listed):
            return Listed(tuple(n - start for n in first.numbers)), *rest
        return Along(first.size, first.start - start, first.step, first.repeat), *rest
    if not isinstance(first, Along) or first.step != 1 or first.repeat != 1:
        return None if inside.any() else ()
    return (Along(int(inside.sum()), int(indices[inside][0]) - start), *rest) if inside.any() else ()


def spread(imp: Importer, node: Source, tensors: list[str]) -> list[str] | None:
    """The tensors with axes of 1 repeated until all have one shape, as ONNX's broadcasting does; None where it would move
    axes."""
    shapes = [imp.type(t).shape for t in tensors]
    if len({len(s) for s in shapes}) > 1:
        return None
    whole = tuple(max(sizes) for sizes in zip(*shapes))
    if any(n not in (1, full) for s in shapes for n, full in zip(s, whole)):
        return None
    found = []
    for tensor, shape in zip(tensors, shapes):
        along = tuple(Along(full, 0, 1, full if n < full else 1) for n, full in zip(shape, whole))
        name = imp.unique(f"{tensor}.spread") if shape != whole else ""
        found.append(view(imp, node, tensor, along, name) if name else tensor)
    return found
