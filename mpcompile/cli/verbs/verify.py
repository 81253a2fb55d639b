"""mpcompile verify MODEL.onnx M.mpc [--inputs X.npz] [--variant NAME|all] [--witness WHO]"""

from __future__ import annotations

import argparse

from mpcompile.cli import console, shape_option

ALL = "all"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="the file that the bundle was compiled from")
    shape_option.arguments(parser)
    parser.add_argument("bundle", metavar="M.mpc")
    parser.add_argument(
        "--inputs", metavar="X.npz", help="arrays by input name (default: random ones, the same each time)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all physical cores")
    parser.add_argument(
        "--variant", metavar="NAME", help=f"of the bundle, or {ALL} that this CPU can run (default: the best for it)"
    )
    parser.add_argument(
        "--witness",
        choices=("auto", "onnxruntime", "qonnx", "onnx", "none"),
        default="auto",
        help="whose results the file's reading is compared with: auto is qonnx for files with its operators, else ONNX "
        "Runtime, where installed; onnx is onnx's own evaluator, slow (default: %(default)s)",
    )


def work(args: argparse.Namespace) -> tuple[dict, int]:
    from mpcompile.api.verify import Verification, compare_bundle, inputs_of
    from mpcompile.cli.arrays import read_arrays
    from mpcompile.frontend import load_source
    from mpcompile.runtime import open_bundle
    from mpcompile.witness.reading import check_reading

    source = load_source(args.model, shape_option.shapes(args))
    graph = source.graph
    inputs = inputs_of(graph, read_arrays(args.inputs, graph.inputs) if args.inputs else None)
    reading = check_reading(source, inputs, args.witness)
    found = {}
    for name in _runnable(args.bundle) if args.variant == ALL else [args.variant]:
        with open_bundle(args.bundle, args.threads, variant=name) as bundle:
            one = found[bundle.variant.name] = Verification(compare_bundle(graph, bundle, inputs), reading)
        console.table(*one.bundle.table())
        console.say((f"{bundle.variant.name}, " if args.variant else "") + _told(one.bundle.equal, one.lines()[0]))
    if not reading.equal:
        console.table(*reading.table())
    console.say(_told(reading.equal, one.lines()[1]) if reading.rows else reading.summary)
    code = 0 if all(one.equal for one in found.values()) else 1
    if args.variant == ALL:
        return {"variants": {name: one.to_json() for name, one in found.items()}}, code
    return one.to_json() | {"variant": bundle.variant.name}, code


def _told(equal: bool, said: str) -> str:
    return ("equal: " if equal else "DIFFERENT: ") + said


def _runnable(path: str) -> list[str]:
    """The variants that this CPU can run; says which are left out. Raises TargetError where it can run none."""
    from mpcompile.runtime.archive import read_manifest
    from mpcompile.runtime.variants import pick, variants_of

    variants = variants_of(path, read_manifest(path))
    pick(path, variants)
    for variant in variants:
        if not variant.fits:
            lacks = "is of another kind" if variant.missing is None else f"lacks {', '.join(variant.missing)}"
            console.say(f"{variant.name} is not checked: this machine {lacks}")
    return [variant.name for variant in variants if variant.fits]
