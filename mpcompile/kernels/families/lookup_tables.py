"""Family `lookup` as tensor expressions: the tables, and the sums of what is looked up in them (lookup.py)."""

from __future__ import annotations

from mpcompile.kernels.accumulators import chunk
from mpcompile.kernels.families.dot_step import axes
from mpcompile.kernels.families.lookup_form import GROUP, LANES, Lookup
from mpcompile.kernels.late_tvm import te, tirx


def tables(name: str, digits_name: str, data, form: Lookup):
    """uint8 [HP, WP, digits, CP/4·16] of levels [HP, WP, CP]; the schedule keeps it to the rows that are being read.

    Where activations have several digits, a stage `digits_name` [HP, WP, digits, CP] uint8 comes before it.
    """
    height, width, channels = (int(n) for n in data.shape)
    source = lambda y, x, digit, c: data[y, x, c]
    if form.digits > 1:
        mask = tirx.const((1 << form.bits) - 1, "uint8")
        source = te.compute(
            (height, width, form.digits, channels),
            lambda y, x, digit, c: (data[y, x, c] >> (digit * form.bits).astype("uint8")) & mask,
            name=digits_name,
        )

    def entry(y, x, digit, n):
        terms = [
            tirx.Select(n // (1 << j) % 2 == 1, source(y, x, digit, n // 16 * GROUP + j), tirx.const(0, "uint8"))
            for j in range(GROUP)
        ]
        return (terms[0] + terms[1]) + (terms[2] + terms[3])

    return te.compute((height, width, form.digits, channels // GROUP * 16), entry, name=name)


def compute(
    name: str, narrow_name: str, table, weight, form: Lookup, height: int, width: int, strides, dilations, origin
):
    """The reduction P[y, x, ob, i, d, half, lane] uint16 of a table and a weight of `pack_weights`.

    A stage `narrow_name` [y, x, ob, i, d, kho, kwo, co, lane, half] uint8 comes before it. Of a `whole` it is
    P[y, x, ob, i, d, lane] int32 alone.
    """
    if form.whole:
        return _whole(name, table, weight, form, height, width, strides, dilations, origin)
    blocks, planes_w, kernel_h, kernel_w, steps, _, _ = (int(n) for n in weight.shape)
    inner = chunk(kernel_h, kernel_w, steps, form.most)
    outer = (kernel_h // inner[0], kernel_w // inner[1], steps // inner[2])
    khi, kwi, ci, entry = axes((*inner, 16), ("khi", "kwi", "ci", "entry"))

    def looked_up(y, x, ob, i, d, kho, kwo, co, lane, half):
        kh, kw, c = kho * inner[0] + khi, kwo * inner[1] + kwi, co * inner[2] + ci
        found = table[
            y * strides[0] + kh * dilations[0] + origin[0],
            x * strides[1] + kw * dilations[1] + origin[1],
            d,
            c * 16 + entry,
        ]
        # an index in an index could not be tensorized: a sum over entries, of which one counts
        return te.sum(
            tirx.Select(
                weight[ob, i, kh, kw, c, lane, half] == entry.var.astype("uint8"), found, tirx.const(0, "uint8")
            ),
            axis=[khi, kwi, ci, entry],
        )

    shape = (height, width, blocks, planes_w, form.digits)
    narrow = te.compute((*shape, *outer, 16, 2), looked_up, name=narrow_name)
    kho, kwo, co = axes(outer, ("kho", "kwo", "co"))
    return te.compute(
        (*shape, 2, 16),
        lambda y, x, ob, i, d, half, lane: te.sum(
            narrow[y, x, ob, i, d, kho, kwo, co, lane, half].astype("uint16"), axis=[kho, kwo, co]
        ),
        name=name,
    )


def _whole(name: str, table, weight, form: Lookup, height: int, width: int, strides, dilations, origin):
    blocks, planes_w, *sizes, lanes, tables = (int(n) for n in weight.shape)
    kh, kw, c, t, entry = axes((*sizes, tables, 16 * tables), ("kh", "kw", "c", "t", "entry"))

    def looked_up(y, x, ob, i, d, lane):
        found = table[
            y * strides[0] + kh * dilations[0] + origin[0],
            x * strides[1] + kw * dilations[1] + origin[1],
            d,
            c * (16 * tables) + entry,
        ]
        chosen = tirx.Select(
            weight[ob, i, kh, kw, c, lane, t] == entry.var.astype("uint8"), found, tirx.const(0, "uint8")
        )
        return te.sum(chosen.astype("int32"), axis=[kh, kw, c, t, entry])

    return te.compute((height, width, blocks, planes_w, form.digits, lanes), looked_up, name=name)


def value(reduction, plane_weights: tuple[int, ...], form: Lookup, y, x, o):
    """int32 Σ_k w̃·l of output channel o."""
    total = None
    for i, weight in enumerate(plane_weights):
        for d in range(form.digits):
            term = (
                reduction[y, x, o // form.lanes, i, d, o % form.lanes]
                if form.whole
                else reduction[y, x, o // LANES, i, d, o % LANES // 16, o % 16].astype("int32")
            )
            term = term * tirx.const(weight << form.bits * d, "int32") if weight << form.bits * d != 1 else term
            total = term if total is None else total + term
    return total
