"""mpcompile profile MODEL.onnx --target T [--bits w1234a1248] -o LUT.json [--tracker H:P --key K]"""

from __future__ import annotations

import argparse
import json

from mpcompile.cli import console, device_options, shape_option


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    shape_option.arguments(parser)
    parser.add_argument("--target", default="native", metavar="T", help="compile for this board (default: %(default)s)")
    parser.add_argument(
        "--bits", metavar="w1234a1248", help="every layer at every pair of these weight and activation bits"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="LUT.json",
        help="gets the result; with --bits, LUT.json.cells beside it keeps what "
        "was measured, so that a later run goes on from there",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: a device's physical cores")
    parser.add_argument(
        "--rounds", type=int, default=11, metavar="N", help="good samples of each (default: %(default)s)"
    )
    device_options.arguments(parser, "measure")


def work(args: argparse.Namespace) -> dict:
    import mpcompile as mp
    from mpcompile.cli.doctor import require_compiler
    from mpcompile.errors import UsageError
    from mpcompile.files import atomic_path, check_writable
    from mpcompile.ir.bits import BitCandidates
    from mpcompile.locks import check_free

    if args.rounds < 1:
        raise UsageError(f"--rounds must be at least 1, not {args.rounds}")
    if args.bits and not args.output:
        raise UsageError("--bits measures for a long time: say with -o where the table goes")
    try:
        bits = BitCandidates.parse(args.bits) if args.bits else None
    except UsageError as error:
        raise UsageError(f"--{error}") from None
    if args.output:
        check_writable(args.output)
    cells = f"{args.output}.cells" if args.bits else None
    if cells:
        check_free(cells)
    require_compiler()
    with device_options.opened(args) as pool:
        with console.progress("measuring") as update:
            found = mp.profile(
                args.model,
                args.target,
                shapes=shape_option.shapes(args),
                bits=bits,
                cache=cells,
                threads=args.threads,
                rounds=args.rounds,
                progress=update,
                pool=pool,
            )
        result = found.to_json()
        if args.output:
            with atomic_path(args.output) as temporary:
                temporary.write_text(json.dumps(result, indent=1) + "\n")
        (_table if args.bits else _layers)(found)
    if args.output:
        console.say(f"{args.output}: {'latency table' if args.bits else 'profile'} of {args.model}")
    return result


def _layers(found) -> None:
    total = sum(t.seconds for t in found.layers.values())
    rows = []
    for row in found.rows:
        timing = found.layers.get(row["name"])
        if timing:
            families = "+".join(dict.fromkeys(part["family"] for part in row.get("parts", ())))
            speed = f"{row['macs'] / timing.seconds / 1e9:.1f}" if row.get("macs") else ""
            rows.append(
                (
                    row["name"],
                    "×".join(map(str, row["shape"])),
                    families,
                    console.seconds(timing.seconds),
                    f"{timing.spread:.0%}",
                    f"{timing.seconds / total:.1%}",
                    speed,
                )
            )
    console.table(("layer", "shape", "family", ">median", ">spread", ">share", ">GMAC/s"), rows)
    console.say(
        f"whole network {console.seconds(found.network.seconds)}, sum of its layers {console.seconds(total)}; "
        f"threads: {found.measured_on['threads']}; {found.note}"
    )


def _table(table) -> None:
    """A row for each layer and weight bits, the cheapest format's time for each activation bits."""
    activations = sorted({a for c in table.contractions for _, a in _cells(table, c)})
    rows = []
    for name in table.contractions:
        cells = _cells(table, name)
        for w in sorted({w for w, _ in cells}):
            rows.append((name, f"{w} bit", *(_best(cells.get((w, a))) for a in activations)))
    console.table(("layer", "weights", *(f">a {a} bit" for a in activations)), rows)
    console.say(f"the model as it is, predicted: {console.seconds(table.predict())}")


def _cells(table, name: str) -> dict[tuple[int, int], dict[str, float]]:
    return table.layers[table.contractions[name].layer].reads.get(name, {})


def _best(cell: dict[str, float] | None) -> str:
    if not cell:
        return ""
    form = min(cell, key=lambda form: cell[form])
    return f"{console.seconds(cell[form])} {form}"
