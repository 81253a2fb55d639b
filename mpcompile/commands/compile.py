"""mpcompile compile MODEL.onnx --target T -o M.mpc"""

from __future__ import annotations

import argparse
import time

from mpcompile import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="QONNX, or ONNX with QuantizeLinear and DequantizeLinear")
    parser.add_argument(
        "--target", default="native", metavar="T", help="a board, or a fleet of boards, by name, or its .toml (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", metavar="M.mpc", help="the bundle (default: beside the model, with the suffix .mpc)"
    )
    parser.add_argument(
        "--records",
        metavar="DIR",
        help="schedules that `mpcompile tune` wrote there win over those that ship; none: every schedule as set by hand",
    )
    parser.add_argument("--dump-ir", metavar="DIR", help="write the module after each phase there")


def work(args: argparse.Namespace) -> dict:
    import mpcompile as mp
    from mpcompile.commands._layers import layer_table
    from mpcompile.doctor import require_compiler
    from mpcompile.runtime.archive import read_manifest

    require_compiler()
    start = time.perf_counter()
    with console.steps() as step:
        output = mp.compile(
            args.model,
            target=args.target,
            output=args.output,
            dump_ir=args.dump_ir,
            records=args.records,
            progress=step,
        )
    seconds = time.perf_counter() - start
    manifest = read_manifest(output)
    for variant in manifest["variants"]:
        if len(manifest["variants"]) > 1:
            console.say(f"{variant['target']['name']}: {variant['target']['description']}")
        layer_table(variant["layers"])
    console.say(
        f"{output}: {len(manifest['variants'][0]['layers'])} layers for {manifest['target']['name']}, "
        f"{console.size(output.stat().st_size)}, compiled in {console.seconds(seconds)}"
    )
    return {
        "bundle": str(output),
        "seconds": seconds,
        "bytes": output.stat().st_size,
        "target": manifest["target"],
        "variants": [{key: v[key] for key in ("target", "layers")} for v in manifest["variants"]],
    }
