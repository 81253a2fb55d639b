"""mpcompile verify MODEL.onnx M.mpc [--inputs X.npz]"""

from __future__ import annotations

import argparse

from mpcompile import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="the file that the bundle was compiled from")
    parser.add_argument("bundle", metavar="M.mpc")
    parser.add_argument(
        "--inputs", metavar="X.npz", help="arrays by input name (default: random ones, the same each time)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all physical cores")


def work(args: argparse.Namespace) -> tuple[dict, int]:
    from mpcompile.arrays import read_arrays
    from mpcompile.compiler.verify import verify
    from mpcompile.frontend import load

    graph = load(args.model)
    inputs = read_arrays(args.inputs, graph.inputs) if args.inputs else None
    report = verify(graph, args.bundle, inputs, threads=args.threads)
    console.table(*report.table())
    console.say(("equal: " if report.equal else "DIFFERENT: ") + report.summary)
    return report.to_json(), 0 if report.equal else 1
