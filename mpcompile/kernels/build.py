"""`LayerSpec` → one PrimFunc: terms, epilogue and outputs as TE stages, named so that a schedule finds them.

D0_1 …       part 1 of term 0, and what is before it, as its family names them (families/NAME.py)
window0_1    window sums, where the weight grid has an offset
acc0         int32 [y, x, o] of a contraction, all corrections added
pool0        int32 or float32 [y, x, o] of a pooling term
value        the value that all outputs derive from, [y, x, group, vector, lane]: the schedule's loops are its loops
level1 …     levels of output 1, where they are not the root; then what stores them:
planes1_bits, planes1, planes_sums1, codes1, codes_sums1, float1, plain1, channels_last1
"""

from __future__ import annotations

from typing import Any

from mpcompile.errors import ModelError
from mpcompile.ir.formats import Buffer, channel_pad
from mpcompile.ir.graph import Along
from mpcompile.ir.order import Part
from mpcompile.kernels import families, smooth, storage
from mpcompile.kernels.epilogue import f32, round_to
from mpcompile.kernels.primitives import fma, primitives_of
from mpcompile.kernels.spec import (
    ChannelsLastSpec,
    ContractSpec,
    InterpolateSpec,
    LayerSpec,
    Op,
    PartSpec,
    PoolSpec,
    RearrangeSpec,
    ViewSpec,
)
from mpcompile.kernels.stages import Stages, StoredStage
from mpcompile.kernels.tvm_names import PrimFunc, prim_func, te, tirx


class _Builder:
    def __init__(self, spec: LayerSpec):
        self.spec = spec
        self.stages = Stages()
        self.data: dict = {}  # form of a tensor → placeholder
        self.inputs: list = []
        self.constants: list = []
        self.loaded: dict[int, Any] = {}  # term → f(y, x, o); of a contraction, of each part, until they are added up
        self.floats: Any = None
        self.ints: Any = None
        self.lookups: list = []

    # -- terms -----------------------------------------------------------------------------------
    def build(self):
        spec = self.spec
        self.loaded = {i: self.term(i, t) for i, t in enumerate(spec.terms)}
        self.floats = self.table(spec.float_rows, "float32", "floats")
        self.ints = self.table(spec.int_rows, "int32", "ints")
        sizes = {op.args[1]: op.args[2] for op in spec.ops if op.kind == "LookUp"}
        self.lookups = [self.constant((sizes[i],), "float32", f"by_level{i}") for i in range(len(sizes))]
        self.accumulated()
        outputs = self.outputs()
        return prim_func([*self.inputs, *self.constants, *outputs], "main"), self.stages

    def table(self, rows: int, dtype: str, name: str):
        if not rows:
            return None
        self.constants.append(te.placeholder((rows, self.spec.padded), dtype, name))
        return self.constants[-1]

    def argument(self, buffer, words=""):
        """One placeholder an input buffer: terms that read the same form of a tensor share it."""
        key = (buffer.tensor, buffer.format, buffer.beside, words)
        if key not in self.data:
            self.data[key] = storage.placeholder(buffer, f"in{len(self.inputs)}", words)
            self.inputs.append(self.data[key])
        return self.data[key]

    def constant(self, shape, dtype, name):
        self.constants.append(te.placeholder(shape, dtype, name))
        return self.constants[-1]

    def term(self, index: int, term):
        if isinstance(term, ContractSpec):
            return [self.part(f"{index}_{i}", p) for i, p in enumerate(term.parts)]
        data = self.argument(term.data)
        if isinstance(term, PoolSpec):
            return self.pool(index, term, data)
        read = lambda y, x, o: storage.read(data, term.data, o, y, x)
        if isinstance(term, InterpolateSpec):
            return self.interpolated(read, term)
        if isinstance(term, RearrangeSpec):
            return self.rearranged(read, term)
        return read if term.along is None else self.picked(read, term.along, term.data)

    def picked(self, read, along, data: Buffer):
        """f(y, x, o) of the elements that `along` picks. Channels past the layer's last read as its first where theirs
        would lie outside of what is stored."""
        of_c, inside = along[0], False
        if isinstance(of_c, Along):
            last = of_c.start + (of_c.step * ((self.spec.padded - 1) // of_c.repeat) if of_c.repeat < of_c.size else 0)
            inside = 0 <= last < self.stored_channels(data)
        pick = self.picking(along)

        def value(y, x, o):
            if not inside:
                o = tirx.Select(o < of_c.size, o, 0)
            o, y, x = pick(o, y, x)
            return read(y, x, o)

        return value

    def picking(self, along):
        """f(c, y, x) → what `along` picks there. What is picked one by one is read from tables."""

        def of_axis(a):
            if isinstance(a, Along):
                return lambda i: _picked(a, i)
            table = self.constant((a.size,), "int32", f"listed{len(self.constants)}")
            return lambda i: table[i]

        axes = [of_axis(a) for a in along]
        return lambda *at: [axis(i) for axis, i in zip(axes, at, strict=True)]

    def rearranged(self, read, term: RearrangeSpec):
        """f(y, x, o) of elements in another order. Channels past the layer's last read as its first."""
        shape = _as_map(term.data.shape)
        parts = term.order.between(shape, term.whole)
        of_c, pick = term.along[0], self.picking(term.along)

        def value(y, x, o):
            if of_c.size < self.spec.padded:
                o = tirx.Select(o < of_c.size, o, 0)
            at = pick(o, y, x)
            c, y, x = _unordered(term, shape, at) if parts is None else [_of_parts(of, at) for of in parts]
            return read(y, x, c)

        return value

    def interpolated(self, read, term: InterpolateSpec):
        """f(y, x, o) of pixels between pixels. Products are fma with a 0 that is read, so that none is contracted with the
        sum that takes it."""
        _, height, width = self.spec.shape
        at_y = self.constant((2, height), "int32", f"lines{len(self.constants)}")
        of_y = self.constant((2, height), "float32", f"of_lines{len(self.constants)}")
        at_x = self.constant((2, width), "int32", f"columns{len(self.constants)}")
        of_x = self.constant((2, width), "float32", f"of_columns{len(self.constants)}")
        scale = self.constant((2,), "float32", f"scale{len(self.constants)}")
        read = self.guarded(read, term.data)

        def part(i, j, y, x, o):
            real = read(at_y[i, y], at_x[j, x], o).astype("float32") * scale[0]
            return fma(real, of_y[i, y] * of_x[j, x], scale[1])

        def value(y, x, o):
            total = part(0, 0, y, x, o)
            for i, j in ((0, 1), (1, 0), (1, 1)):
                total = total + part(i, j, y, x, o)
            return total

        return value

    def stored_channels(self, data: Buffer) -> int:
        """Channels that may be read of a buffer; of planes as many as are computed."""
        if data.format == "plain":
            return data.shape[0]
        return data.buffer_shape[-1] if data.format in ("codes", "float") else self.spec.padded

    def part(self, tag: str, part: PartSpec):
        """f(y, x, o) → int32 Σ w·a but for the constant, which the int table holds."""
        _, height, width = self.spec.shape
        data = self.argument(part.data, part.word)
        weight = self.constant(part.weight_shape, part.weight_dtype, f"weight{tag}")
        more = {"table": self.constant(part.table_shape, "int32", f"table{tag}")} if part.table_shape else {}
        expressed = families.family(part.family).compute(tag, part, data, weight, self.spec, **more)
        self.stages.parts.append(expressed.stages)
        window = self.window(tag, part) if part.offset else None
        border = None
        if part.border:
            class_y = self.constant((height,), "int32", f"class_y{tag}")
            class_x = self.constant((width,), "int32", f"class_x{tag}")
            border = self.constant((*part.border, self.spec.padded), "int32", f"border{tag}")

        def value(y, x, o):
            total = expressed.value(y, x, o)
            total = total * part.multiplier if part.multiplier != 1 else total
            if window is not None:
                total = total + window[y, x] * part.offset
            if part.constant is not None:
                total = total + self.ints[part.constant, o]
            return total if border is None else total + border[class_y[y], class_x[x], o]

        return value

    def window(self, tag: str, part: PartSpec):
        """int32 [y, x]: the sum of the stored pixel sums over each window, shared by all output channels."""
        _, height, width = self.spec.shape
        sums = self.argument(part.sums)
        kh, kw = te.reduce_axis((0, part.kernel[0]), "kh"), te.reduce_axis((0, part.kernel[1]), "kw")
        (sy, sx), (dy, dx), (oy, ox) = part.strides, part.dilations, part.origin
        self.stages.windows.append(f"window{tag}")
        return te.compute(
            (height, width),
            lambda y, x: te.sum(sums[y * sy + kh * dy + oy, x * sx + kw * dx + ox], axis=[kh, kw]),
            name=f"window{tag}",
        )

    def pool(self, index: int, term: PoolSpec, data):
        _channels, height, width = self.spec.shape
        _, h, w = _as_map(term.data.shape)
        kh, kw = te.reduce_axis((0, term.kernel[0]), "kh"), te.reduce_axis((0, term.kernel[1]), "kw")
        zero = tirx.const(0, "int32" if term.data.grid else "float32")
        top, left, bottom, right = term.pads
        read = self.guarded(lambda y, x, o: storage.read(data, term.data, o, y, x), term.data)

        def tap(y, x, o):
            iy, ix = y * term.strides[0] + kh - top, x * term.strides[1] + kw - left
            # the nearest pixel inside: for a max it lies in the same window, so it changes nothing
            ny = tirx.min(tirx.max(iy, 0), h - 1) if top or bottom else iy
            nx = tirx.min(tirx.max(ix, 0), w - 1) if left or right else ix
            value = read(ny, nx, o)
            if term.kind == "sum" and any(term.pads):
                value = tirx.Select(tirx.all(iy == ny, ix == nx), value, zero)
            return te.max(value, axis=[kh, kw]) if term.kind == "max" else te.sum(value, axis=[kh, kw])

        self.stages.pools.append(f"pool{index}")
        return _Indexed.of(te.compute((height, width, self.spec.padded), tap, name=f"pool{index}"))

    def guarded(self, read, data: Buffer):
        """Channels past what is stored read as channel 0; no output keeps them."""
        stored = self.stored_channels(data)
        if stored >= self.spec.padded:
            return read
        return lambda y, x, o: read(y, x, tirx.Select(o < stored, o, 0))

    def accumulated(self):
        """Contractions get a stage of their own: int32 tiles between reduction and epilogue."""
        _, height, width = self.spec.shape
        for i, term in enumerate(self.spec.terms):
            if isinstance(term, ContractSpec):
                stage = te.compute((height, width, self.spec.padded), _sum_of(self.loaded[i]), name=f"acc{i}")
                self.stages.accumulators.append(f"acc{i}")
                self.loaded[i] = _Indexed.of(stage)
            elif isinstance(term, ViewSpec) and term.along is None:
                self.loaded[i] = self.guarded(self.loaded[i], term.data)

    # -- epilogue --------------------------------------------------------------------------------
    def value(self, at: int, y, x, o, known):
        """Expression of value `at`; `known`: ids that are stages already → f(y, x, o)."""
        if at in known:
            return known[at](y, x, o)
        op = self.spec.ops[at]
        get = lambda i: self.value(i, y, x, o, known)
        row = lambda r: self.floats[r, o]
        a = op.args
        match op.kind:
            case "Load":
                loaded = self.loaded[a[0]](y, x, o)
                return loaded.astype("float32")
            case "Fma":
                b = get(-1 - a[2]) if a[2] < 0 else row(a[2])
                return fma(get(a[0]), row(a[1]), b)
            case "Plus":
                return get(a[0]) + get(a[1])
            case "Times":
                return get(a[0]) * get(a[1])
            case "Largest":
                return tirx.max(get(a[0]), get(a[1]))
            case "Smallest":
                return tirx.min(get(a[0]), get(a[1]))
            case "Apply":
                return smooth.apply(a[1], get(a[0]), a[2:])
            case "LookUp":
                return self.lookups[a[1]][get(a[0]) & (a[2] - 1)]
            case "Divide":
                return get(a[0]) / row(a[1])
            case "Clamp":
                v = get(a[0])
                v = tirx.max(v, f32(a[1])) if a[1] > float("-inf") else v
                return tirx.min(v, f32(a[2])) if a[2] < float("inf") else v
            case "Slope":
                v = get(a[0])
                return fma(tirx.min(v, f32(0.0)), row(a[1]), tirx.max(v, f32(0.0)))
            case "Round":
                return round_to(get(a[0]), *a[1:])
            case "Value":
                q = get(a[0])
                q = q * a[2] if a[2] != 1 else q
                return (q + a[1] if a[1] else q).astype("float32")
            case "Thresholds":
                term, first, count, flip = a
                acc = self.loaded[term](y, x, o)
                acc = acc ^ self.ints[flip, o] if flip >= 0 else acc
                level = None
                for r in range(first, first + count):
                    step = tirx.Select(acc >= self.ints[r, o], tirx.const(1, "int32"), tirx.const(0, "int32"))
                    level = step if level is None else level + step
                return level
        raise ModelError(f"{op.kind} is no epilogue instruction")

    # -- outputs ---------------------------------------------------------------------------------
    def outputs(self) -> list:
        channels, height, width = self.spec.shape
        groups, vectors, lanes = self.spec.blocking
        domain = (height, width, groups, vectors, lanes)
        channel = lambda g, k, lane: (g * vectors + k) * lanes + lane
        root_id = root(self.spec.ops, [o.value for o in self.spec.outputs])
        stages = {
            root_id: te.compute(
                domain, lambda y, x, g, k, lane: self.value(root_id, y, x, channel(g, k, lane), {}), name="value"
            )
        }
        written = []
        for i, out in enumerate(self.spec.outputs):
            if out.value not in stages:
                stages[out.value] = te.compute(
                    domain,
                    lambda y, x, g, k, lane: self.derived(
                        root_id, stages[root_id][y, x, g, k, lane], out.value, y, x, channel(g, k, lane)
                    ),
                    name=f"level{i}",
                )
                self.stages.levels.append(f"level{i}")
            value, last = stages[out.value], {}
            for b in out.buffers:
                name, bits = f"{b.format}{i}" if b.format != "sums" else f"{b.beside}_sums{i}", ""
                form = b.format
                if b.format == "planes":
                    bits = f"{name}_bits"
                    tensor = last["planes"] = storage.pack(value, b, name, bits)
                elif b.format == "sums":
                    add = storage.sum_planes if b.beside == "planes" else storage.sum_codes
                    tensor = add(last[b.beside], b, name)
                elif b.format in ("codes", "float") and channel_pad(channels) == self.spec.padded:
                    tensor = last[b.format] = te.compute(
                        domain,
                        lambda y, x, g, k, lane: _or_zero(
                            value[y, x, g, k, lane], channel(g, k, lane), channels, b.dtype
                        ),
                        name=name,
                    )
                elif b.format in ("codes", "float"):  # fewer channels than are computed
                    tensor = last[b.format] = te.compute(
                        (height, width, channel_pad(channels)),
                        lambda y, x, o: _or_zero(_at(value, y, x, o), o, channels, b.dtype),
                        name=name,
                    )
                elif isinstance(out, ChannelsLastSpec):
                    form, name = "channels_last", f"channels_last{i}"
                    tensor = te.compute(b.shape, lambda *at: _at(value, *(0, *at)[-3:]), name=name)
                else:
                    tensor = te.compute(b.shape, lambda *at: _plain(value, at), name=name)
                self.stages.stored.append(StoredStage(name, form, bits))
                written.append(tensor)
        return written

    def derived(self, root_id: int, known, at: int, y, x, o):
        """Expression of value `at` where value `root_id` is the expression `known`."""
        return self.value(at, y, x, o, {root_id: lambda *_: known})


class _Indexed:
    """f(y, x, o) that may be written as an array."""

    def __init__(self, read):
        self.read = read

    @staticmethod
    def of(stage) -> _Indexed:
        return _Indexed(lambda y, x, o: stage[y, x, o])

    def __call__(self, y, x, o):
        return self.read(y, x, o)

    def __getitem__(self, at):
        return self.read(*at)


def _sum_of(parts):
    """f(y, x, o): the parts' sum."""

    def total(y, x, o):
        value = parts[0](y, x, o)
        for part in parts[1:]:
            value = value + part(y, x, o)
        return value

    return total


def _picked(along: Along, i):
    """The index that element i has in the input."""
    if along.size <= along.repeat:
        return tirx.const(along.start, "int32")
    i = i // along.repeat if along.repeat > 1 else i
    i = i * along.step if along.step != 1 else i
    return i + along.start if along.start else i


def _of_parts(parts: tuple[Part, ...], at):
    """The index that is the sum of `parts` of the indices `at`."""
    total = tirx.const(0, "int32")
    for part in parts:
        i = at[part.axis]
        i = i // part.divisor if part.divisor > 1 else i
        i = i if part.last else i % part.size
        i = i * part.multiplier if part.multiplier > 1 else i
        total = total + i
    return total


def _unordered(term: RearrangeSpec, shape: tuple[int, int, int], at):
    """(c, y, x) in a map of `shape` of the element at (c, y, x) of the result, by their numbers in the two."""
    (c, y, x), (_, height, width) = at, term.whole
    left, found = (c * height + y) * width + x, tirx.const(0, "int32")
    for size, stride in reversed(term.order.digits):
        found, left = found + left % size * stride, left // size
    _, height, width = shape
    return found // (height * width), found // width % height, found % width


def _or_zero(value, o, channels: int, dtype: str):
    """The value in `dtype`; 0 in channels past the last."""
    value = value.astype(dtype)
    return value if channels == channel_pad(channels) else tirx.Select(o < channels, value, tirx.const(0, dtype))


def _plain(value, at):
    """The value at a plain index (c, y, x), (c, x) or (c,)."""
    return _at(value, *_yx(at), at[0])


def _at(value, y, x, c):
    """[y, x, group, vector, lane] at channel c."""
    _, _, _, vectors, lanes = (int(n) for n in value.shape)
    return value[y, x, c // (vectors * lanes), c // lanes % vectors, c % lanes]


def _as_map(shape):
    """(C, H, W) of a shape of any rank up to 3."""
    return shape if len(shape) == 3 else (shape[0], 1, shape[1]) if len(shape) == 2 else (shape[0], 1, 1)


def _yx(at):
    """(y, x) of a plain index of rank 1, 2 or 3."""
    return (at[1], at[2]) if len(at) == 3 else (0, at[1]) if len(at) == 2 else (0, 0)


def _uses(op: Op) -> tuple[int, ...]:
    """Ids of the values that an instruction reads."""
    match op.kind:
        case "Load" | "Thresholds":
            return ()
        case "Plus" | "Times" | "Largest" | "Smallest":
            return op.args
        case "Fma":
            return (op.args[0], -1 - op.args[2]) if op.args[2] < 0 else (op.args[0],)
    return (op.args[0],)


def root(ops: tuple[Op, ...], values: list[int]) -> int:
    """The last value that every output is or derives from alone.

    Raises ModelError where outputs have none in common.
    """
    for candidate in range(max(values), -1, -1):

        def only_through(at: int) -> bool:
            uses = _uses(ops[at])
            return at == candidate or (bool(uses) and all(only_through(u) for u in uses))

        if all(only_through(v) for v in values):
            return candidate
    raise ModelError("a layer's outputs must derive from one common value")


def build(spec: LayerSpec, kind: str) -> tuple[PrimFunc, Stages]:
    """(PrimFunc, Stages), for a kind of device. Arguments: inputs in the order of the terms, constants, outputs."""
    with primitives_of(kind):
        return _Builder(spec).build()
