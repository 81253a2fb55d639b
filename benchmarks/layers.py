"""Rows on the single 3×3 layers of ResNet-18: popcount against the ceiling and TVM 0.19, dot against ONNX Runtime.

The layer is node `conv` of a small network (networks.conv_layer): codes in, codes out, halo, offset term, scale and
bias, ReLU, requantizing and packing included. The kernel alone is what twice the input channels cost more under the same
tile: its time per bit-MAC without anything that is done once for each output.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import roofline
from benchmarks.compiled import Bench
from benchmarks.networks import RESNET18_LAYERS, Bits, ConvShape, conv_layer
from benchmarks.onnxruntime_baseline import conv_chain_qdq
from benchmarks.row import Row
from benchmarks.tvm_bitserial import Bitserial
from mpcompile.latency import onnxruntime
from mpcompile.latency.measure import Measurement, measure
from mpcompile.latency.timer import Timer
from mpcompile.schedules.tile import Tile

LOW_BITS = (Bits(1, 1), Bits(1, 2), Bits(2, 2))
KERNEL_TARGET, TVM_TARGET, DOT_TARGET = 0.92, 15.0, 1.0


def whole_layer_target(shape: ConvShape) -> float:
    return 0.75 if shape.c >= 128 else 0.65


def layer_timer(bench: Bench, shape: ConvShape, bits: Bits, tile: Tile | None = None) -> Timer:
    """The compiled layer alone, one thread; under `tile`, or that of the records and defaults."""
    name = f"conv {shape} {bits}" + (f" {tile}" if tile else "")
    return bench.bundle(name, lambda: conv_layer(shape, bits), tiles={"conv": tile} if tile else None).layer_timers()[
        "conv"
    ]


def tile_of(bench: Bench, shape: ConvShape, bits: Bits) -> Tile:
    rows = bench.bundle(f"conv {shape} {bits}", lambda: conv_layer(shape, bits)).layers
    return next(Tile.from_json(row["tile"]) for row in rows if row["name"] == "conv")


def halves(shape: ConvShape) -> tuple[ConvShape, ConvShape]:
    """The layer with half its input channels and with all, but at least 64 and 128: their difference is the kernel."""
    least = max(64, shape.c // 2)
    return replace(shape, c=least), replace(shape, c=2 * least)


def families(bench: Bench, shape: ConvShape, bits: Bits) -> str:
    rows = bench.bundle(f"conv {shape} {bits}", lambda: conv_layer(shape, bits)).layers
    return "+".join(sorted({p["family"] for row in rows if row["name"] == "conv" for p in row["parts"]}))


def popcount_rows(bench: Bench, rounds: int, tvm: Bitserial | None, tvm_missing: str = "") -> list[Row]:
    """Per bit pair and layer: kernel and whole layer of the ceiling, and times faster than TVM 0.19."""
    kernels, wholes, against = [], [], []
    for bits in LOW_BITS:
        for shape in RESNET18_LAYERS:
            small, large = halves(shape)
            tile = tile_of(bench, shape, bits)
            subjects = {
                "whole": layer_timer(bench, shape, bits),
                "small": layer_timer(bench, small, bits, tile),
                "large": layer_timer(bench, large, bits, tile),
                **roofline.timers(bench.target),
            }
            theirs = tvm.timers(shape, bits) if tvm else {}
            bench.say(f"measuring {bits} {shape}")
            found = measure({**subjects, **{f"tvm {n}": t for n, t in theirs.items()}}, rounds=rounds)
            ceiling = roofline.Ceilings.of(found, bench.target)
            what = f"{bits} {shape}"
            per_second = (large.macs - small.macs) * bits.w * bits.a / (found["large"].seconds - found["small"].seconds)
            whole = shape.macs * bits.w * bits.a / found["whole"].seconds
            detail = {
                "ceiling": ceiling.to_json(),
                "measurement": found.to_json(),
                "family": families(bench, shape, bits),
            }
            kernels.append(_kernel(what, per_second, ceiling, detail))
            note = f"{found['whole'].seconds * 1e6:.0f} µs, {whole / 1e9:.0f} G bit-MAC/s, {detail['family']}"
            wholes.append(
                Row(
                    "popcount layer",
                    what,
                    whole / ceiling.popcount,
                    "of ceiling",
                    whole_layer_target(shape),
                    note,
                    detail,
                )
            )
            against.append(
                _against_tvm(what, found, theirs, tvm_missing, shape.macs * bits.w * bits.a / ceiling.popcount)
            )
    return kernels + wholes + against


def _kernel(what: str, per_second: float, ceiling: roofline.Ceilings, detail: dict) -> Row:
    """More than the ceiling is no kernel: then the layer with half the channels cost too much, or a sample was
    disturbed."""
    share, note = per_second / ceiling.popcount, f"{per_second / 1e9:.0f} G bit-MAC/s"
    if not 0 < share < 1.05:
        note = f"the difference says {note}: half the channels cost too much or too little to tell"
        return Row("popcount kernel", what, None, "of ceiling", KERNEL_TARGET, note, detail)
    return Row("popcount kernel", what, share, "of ceiling", KERNEL_TARGET, note, detail)


def _against_tvm(what: str, found: Measurement, theirs: dict[str, Timer], missing: str, least: float) -> Row:
    """Against the operator as it comes; how much of that is left against its best setting stands in the note. `least`:
    seconds at the ceiling."""
    group = "layer vs TVM 0.19 bit-serial, its default setting"
    if "default" not in theirs:
        return Row(group, what, None, "×", TVM_TARGET, missing or "TVM 0.19 does not compute this layer rightly")
    best = min((f"tvm {n}" for n in theirs), key=lambda n: found[n].seconds)
    note = (
        f"{found['tvm default'].seconds * 1e6:.0f} µs; {found.ratio(best, 'whole'):.1f}× its "
        f"{best.removeprefix('tvm ')}, {found[best].seconds * 1e6:.0f} µs"
    )
    return Row(
        group,
        what,
        found.ratio("tvm default", "whole"),
        "×",
        TVM_TARGET,
        note,
        {"best setting": best, "ratio to best": found.ratio(best, "whole")},
        found["tvm default"].seconds / least,
    )


def dot_rows(bench: Bench, rounds: int) -> list[Row]:
    """W8A8 layers against ONNX Runtime's quantized convolution with ReLU and requantizing, its layout changes taken
    off."""
    rows = []
    bits = Bits(8, 8)
    for shape in RESNET18_LAYERS:
        before = ConvShape(shape.c, shape.h, shape.c)
        sessions = {
            name: onnxruntime.session(conv_chain_qdq(chain).SerializeToString(), 1)
            for name, chain in (("ort before", [before]), ("ort both", [before, shape]))
        }
        subjects = {
            "ours": layer_timer(bench, shape, bits),
            **roofline.timers(bench.target),
            **{name: onnxruntime.timer(session) for name, session in sessions.items()},
        }
        bench.say(f"measuring {bits} {shape}")
        found = measure(subjects, rounds=rounds)
        theirs = found["ort both"].seconds - found["ort before"].seconds
        ours, ceiling = found["ours"].seconds, roofline.Ceilings.of(found, bench.target)
        group, what = "dot layer vs ONNX Runtime int8", f"{bits} {shape}"
        if theirs < shape.macs / ceiling.dot:
            busy = "the machine was too busy: ONNX Runtime would have beaten the ceiling"
            rows.append(Row(group, what, None, "×", DOT_TARGET, busy))
            continue
        rows.append(
            Row(
                group,
                what,
                theirs / ours,
                "×",
                DOT_TARGET,
                f"{ours * 1e6:.0f} µs against {theirs * 1e6:.0f}; {shape.macs / ours / 1e9:.0f} GMAC/s, "
                f"{shape.macs / ours / ceiling.dot:.2f} of the {roofline.loops(bench.target)['dot'].instruction} ceiling",
                {"ceiling": ceiling.to_json(), "measurement": found.to_json()},
                theirs * ceiling.dot / shape.macs,
            )
        )
    return rows
