"""mpcompile tune MODEL.onnx --target T --trials N -o RECORDS [--tracker H:P --key K]"""

from __future__ import annotations

import argparse

from mpcompile.cli import console, device_options, shape_option


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="or a module of TVM's Relay or Relax (.json)")
    shape_option.arguments(parser)
    parser.add_argument(
        "--params", metavar="P.bin", help="the parameters of a module, as TVM's save_param_dict gives them"
    )
    parser.add_argument("--target", default="native", metavar="T", help="compile for this board (default: %(default)s)")
    parser.add_argument(
        "--trials", type=int, default=64, metavar="N", help="schedules measured of each layer (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="that a layer runs on (default: %(default)s; its record serves any number)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="RECORDS",
        help="a folder, for `mpcompile compile --records`; it keeps every trial, so that a later run goes on from there",
    )
    device_options.arguments(parser, "measure")


def work(args: argparse.Namespace) -> dict:
    import mpcompile as mp
    from mpcompile.cli.doctor import require_compiler
    from mpcompile.locks import check_free
    from mpcompile.tvm_frontend.module_file import as_onnx

    check_free(args.output)
    require_compiler()
    with as_onnx(args.model, args.params) as model, device_options.opened(args) as pool:
        with console.progress("tuning") as update:
            found = mp.tune(
                model,
                args.target,
                args.output,
                shapes=shape_option.shapes(args),
                trials=args.trials,
                threads=args.threads,
                pool=pool if args.key else None,
                progress=lambda done, total, title: update(done, total, title),
            )
    rows = []
    for names, record in found.records:
        more = f" +{len(names) - 1}" if len(names) > 1 else ""
        tile = console.tile(record.tile) if record.tuned else "default"
        rows.append(
            (
                names[0] + more,
                console.seconds(record.default_seconds),
                console.seconds(record.seconds),
                f"{record.gain:.3f}×" if record.tuned else "",
                tile,
            )
        )
    console.table(("layer", ">default", ">tuned", ">gain", "schedule"), rows)
    for layer, reasons in found.failures.items():
        console.say(f"{layer}: {len(reasons)} trials failed, the first: {reasons[0]}")
    before = sum(r.default_seconds * len(names) for names, r in found.records)
    after = sum(r.seconds * len(names) for names, r in found.records)
    console.say(
        f"{found.path}: {len(found.records)} layers, {found.new} trials measured now and {found.known} before; all "
        f"layers {console.seconds(before)} with default schedules, {console.seconds(after)} tuned ({before / after:.3f}×)"
    )
    return found.to_json()
