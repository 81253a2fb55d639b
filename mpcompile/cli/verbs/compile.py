"""mpcompile compile MODEL.onnx --target T -o M.mpc"""

from __future__ import annotations

import argparse
import time

from mpcompile.cli import console, shape_option


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL.onnx",
        help="QONNX, or ONNX with QuantizeLinear and DequantizeLinear; or a module of TVM's Relay or Relax (.json, as "
        "tvm.ir.save_json writes it)",
    )
    shape_option.arguments(parser)
    parser.add_argument(
        "--params", metavar="P.bin", help="the parameters of a module, as TVM's save_param_dict gives them"
    )
    parser.add_argument(
        "--target",
        default="native",
        metavar="T",
        help="a board, or a fleet of boards, by name, or its .toml (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", metavar="M.mpc", help="the bundle (default: beside the model, with the suffix .mpc)"
    )
    parser.add_argument(
        "--format",
        choices=("bundle", "c"),
        default="bundle",
        help="c: a folder with a static library, its header, an example and a CMake file (default: %(default)s)",
    )
    parser.add_argument("--name", help="with --format c: what every public name of the library begins with")
    parser.add_argument(
        "--records",
        metavar="DIR",
        help="schedules that `mpcompile tune` wrote there win over those that ship; none: every schedule as set by hand",
    )
    parser.add_argument(
        "--require-quantized", action="store_true", help="refuse a model of which an operator would run in float"
    )
    parser.add_argument(
        "--ir",
        choices=("relay", "relax"),
        help="go through TVM's Relay or Relax: write a library of theirs (M.so) in which our kernels are linked",
    )
    parser.add_argument("--dump-ir", metavar="DIR", help="write what each phase made there, as text")


def work(args: argparse.Namespace) -> dict:
    from mpcompile.cli.doctor import require_compiler
    from mpcompile.errors import UsageError
    from mpcompile.tvm_frontend.module_file import as_onnx

    require_compiler()
    if args.ir:
        return _through_tvm(args)
    if args.format != "c" and args.name:
        raise UsageError("--name is of --format c: a bundle has no C names")
    if args.model.endswith(".json") and not args.output:
        args.output = args.model.removesuffix(".json") + ("" if args.format == "c" else ".mpc")
    with as_onnx(args.model, args.params) as args.model:
        return _c(args) if args.format == "c" else _bundle(args)


def _bundle(args: argparse.Namespace) -> dict:
    import mpcompile as mp
    from mpcompile.cli.layer_table import float_table, layer_table
    from mpcompile.runtime.archive import read_manifest

    start = time.perf_counter()
    with console.steps() as step:
        output = mp.compile(
            args.model,
            shapes=shape_option.shapes(args),
            target=args.target,
            output=args.output,
            dump_ir=args.dump_ir,
            records=args.records,
            require_quantized=args.require_quantized,
            progress=step,
        )
    seconds = time.perf_counter() - start
    manifest = read_manifest(output)
    for variant in manifest["variants"]:
        if len(manifest["variants"]) > 1:
            console.say(f"{variant['target']['name']}: {variant['target']['description']}")
        layer_table(variant["layers"])
    float_table(manifest["variants"][0]["layers"])
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


def _c(args: argparse.Namespace) -> dict:
    import mpcompile as mp
    from mpcompile.errors import UsageError

    if args.dump_ir:
        raise UsageError("--dump-ir is of --format bundle: the phases are the same")
    start = time.perf_counter()
    with console.steps() as step:
        made = mp.export_c(
            args.model,
            args.target,
            args.output,
            shapes=shape_option.shapes(args),
            name=args.name,
            records=args.records,
            require_quantized=args.require_quantized,
            progress=step,
        )
    seconds = time.perf_counter() - start
    console.say(
        f"{made.folder}: {', '.join(made.files)}; {console.size(made.weights_bytes)} of weights, workspace of "
        f"{console.size(made.workspace_bytes)}, made in {console.seconds(seconds)}"
    )
    return made.to_json() | {"seconds": seconds, "target": args.target}


def _through_tvm(args: argparse.Namespace) -> dict:
    """--ir: the lines that the pass said, and where TVM's library is."""
    from mpcompile.errors import UsageError
    from mpcompile.tvm_frontend.through import compile_through

    refused = {"--format c": args.format == "c", "--name": args.name, "--dump-ir": args.dump_ir}
    for option, given in (refused | {"--require-quantized": args.require_quantized}).items():
        if given:
            raise UsageError(f"{option} is not of --ir {args.ir}, which writes a library of TVM's")
    start = time.perf_counter()
    with console.steps() as step:
        step(f"through {args.ir.capitalize()}")
        output, said = compile_through(
            args.ir, args.model, args.target, args.output, args.params, shape_option.shapes(args), args.records
        )
    seconds = time.perf_counter() - start
    for line in said:
        console.say(line)
    console.say(
        f"{output}: for {args.target}, {console.size(output.stat().st_size)}, compiled in {console.seconds(seconds)}"
    )
    return {"library": str(output), "seconds": seconds, "said": said, "target": args.target}
