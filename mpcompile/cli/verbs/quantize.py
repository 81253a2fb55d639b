"""mpcompile quantize FLOAT.onnx --calibration DIR --bits w4a8 | --latency "12 ms" --target T -o Q.onnx"""

from __future__ import annotations

import argparse

from mpcompile.cli import console, device_options, shape_option


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FLOAT.onnx", help="an ONNX file in float32")
    shape_option.arguments(parser)
    parser.add_argument(
        "--calibration",
        required=True,
        metavar="DIR|X.npz",
        help="typical inputs: an .npz file with arrays by input name (a single one may bear any), samples along the first "
        "axis, or an .npy file, or a folder of such files",
    )
    parser.add_argument("-o", "--output", required=True, metavar="Q.onnx", help="gets the quantized network, as QONNX")
    bits = parser.add_argument_group("bits", "--bits, or one or several budgets, under which each layer gets its own")
    bits.add_argument("--bits", metavar="w4a8", help="of weights and activations, the same in all layers")
    bits.add_argument("--latency", metavar='"12 ms"', help='on --target, or "w4a4": what that uniform network takes')
    bits.add_argument("--size", metavar='"800 KiB"', help="of all constants, weights at their bits; or as w4a4")
    bits.add_argument(
        "--bitops", metavar='"2 GBitOps"', help="the sum of MACs times the bits of both factors; or as w4a4"
    )
    bits.add_argument(
        "--mean-bits",
        type=float,
        metavar="N",
        help="the uniform bitwidth of as many BitOps, over the layers that are not kept",
    )
    bits.add_argument(
        "--candidates", default="w23468a23468", metavar="w248a48", help="bits to choose among (default: %(default)s)"
    )
    bits.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME=8",
        help="bits of a layer, or of all that a pattern with * fits: 8, w4a8 or float (may be given several times; without "
        "it, the first and the last layer keep 8)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--ranges",
        choices=("mse", "percentile", "minmax"),
        default="mse",
        help="how far grids reach: for the least squared error, to a percentile, or to all values (default: %(default)s)",
    )
    how.add_argument("--percentile", type=float, default=99.99, metavar="P", help="of --ranges (default: %(default)s)")
    how.add_argument(
        "--loss",
        choices=("mse", "kl"),
        default="mse",
        help="by which layers are judged: squared error of the outputs, or divergence of class probabilities (default: "
        "%(default)s)",
    )
    how.add_argument("--samples", type=int, default=256, metavar="N", help="of the inputs that are used (%(default)s)")
    how.add_argument("--judged", type=int, default=32, metavar="N", help="of these, to judge layers by (%(default)s)")
    how.add_argument(
        "--rounding",
        choices=("nearest", "gptq"),
        default="gptq",
        help="of weights: each to the nearest, or, slower, so that others make up for its error (default: %(default)s)",
    )
    how.add_argument("--no-bias-correction", action="store_true", help="leave biases as they are")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of samples (default: %(default)s)")
    time = parser.add_argument_group("latency")
    time.add_argument(
        "--target",
        default="native",
        metavar="T",
        help="the board that --latency is of; where neither this machine nor a named device is one, what its cost model "
        "expects is taken (default: %(default)s)",
    )
    time.add_argument("--table", metavar="LUT.json", help="a latency table of this network, instead of measuring")
    time.add_argument("--threads", type=int, metavar="N", help="default: a device's physical cores")
    time.add_argument("--rounds", type=int, default=11, metavar="N", help="good samples of each (default: %(default)s)")
    device_options.arguments(parser, "measure")


def work(args: argparse.Namespace) -> dict:
    import mpcompile as mp
    from mpcompile.errors import UsageError

    keep = {}
    for given in args.keep:
        name, _, value = given.rpartition("=")
        if not name:
            raise UsageError(f"--keep {given}: the name of a layer and its bits would be accepted, as NAME=8")
        keep[name] = value
    with console.progress("") as update:
        found = mp.quantize(
            args.model,
            args.calibration,
            args.output,
            bits=args.bits,
            latency=args.latency,
            size=args.size,
            bitops=args.bitops,
            mean_bits=args.mean_bits,
            candidates=args.candidates,
            keep=keep,
            target=args.target,
            table=args.table,
            shapes=shape_option.shapes(args),
            ranges=args.ranges,
            percentile=args.percentile,
            loss=args.loss,
            samples=args.samples,
            judged=args.judged,
            rounding=args.rounding,
            correct_bias=not args.no_bias_correction,
            seed=args.seed,
            threads=args.threads,
            rounds=args.rounds,
            tracker=args.tracker,
            key=args.key,
            progress=lambda what, done, total: update(done, total, what),
        )
    _tell(found)
    return found.to_json()


def _tell(found) -> None:
    rows = [
        (
            layer.name,
            layer.op,
            f"{layer.bits.weights} bit",
            f"{layer.bits.activations} bit",
            console.count(layer.weights),
            console.count(layer.macs),
            "" if layer.alone is None else f"{layer.alone:.2g}",
            "kept" if layer.kept else "",
        )
        for layer in found.layers
    ]
    console.table(("layer", "operator", ">weights", ">input", ">numbers", ">MACs", ">loss", ""), rows)
    for name, why in found.float_operators.items():
        console.say(f"{name} runs in float: {why}")
    for cost in found.costs:
        console.say(cost.told())
    same = "" if found.same_class is None else f", the same class for {found.same_class:.1%}"
    console.say(
        f"{found.path}: {len(found.layers)} layers, {console.size(int(found.weight_bytes))} of constants; on "
        f"{found.samples} calibration inputs the outputs' error is {found.loss:.2g} of their variance{same}"
    )
