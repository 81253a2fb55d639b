"""mpcompile verify MODEL.onnx M.mpc [--inputs X.npz] [--variant NAME|all]"""

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


def work(args: argparse.Namespace) -> tuple[dict, int]:
    from mpcompile.api.verify import verify
    from mpcompile.cli.arrays import read_arrays
    from mpcompile.frontend import load
    from mpcompile.runtime import open_bundle

    graph = load(args.model, shape_option.shapes(args))
    inputs = read_arrays(args.inputs, graph.inputs) if args.inputs else None
    reports = {}
    for name in _runnable(args.bundle) if args.variant == ALL else [args.variant]:
        with open_bundle(args.bundle, args.threads, variant=name) as bundle:
            report = reports[bundle.variant.name] = verify(graph, bundle, inputs)
        console.table(*report.table())
        said = f"{bundle.variant.name}, " if args.variant else ""
        console.say(said + ("equal: " if report.equal else "DIFFERENT: ") + report.summary)
    code = 0 if all(report.equal for report in reports.values()) else 1
    if args.variant == ALL:
        return {"variants": {name: report.to_json() for name, report in reports.items()}}, code
    return report.to_json() | {"variant": bundle.variant.name}, code


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
