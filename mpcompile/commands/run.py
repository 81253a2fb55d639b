"""mpcompile run M.mpc --input X.npz --output Y.npz"""

from __future__ import annotations

import argparse
import time

from mpcompile import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="M.mpc")
    parser.add_argument(
        "--input", required=True, metavar="X.npz", help="arrays by input name; a single one may bear any name"
    )
    parser.add_argument("--output", required=True, metavar="Y.npz", help="gets the outputs by name")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all physical cores")
    parser.add_argument("--variant", metavar="NAME", help="of the bundle (default: the best for this CPU)")


def work(args: argparse.Namespace) -> dict:
    from mpcompile.arrays import read_arrays, write_arrays
    from mpcompile.files import check_writable
    from mpcompile.runtime import open_bundle

    check_writable(args.output)
    with open_bundle(args.bundle, threads=args.threads, variant=args.variant) as bundle:
        arrays = read_arrays(args.input, [p.name for p in bundle.inputs])
        start = time.perf_counter()
        found = bundle.run(arrays)
        seconds = time.perf_counter() - start
        results = found if isinstance(found, dict) else {bundle.outputs[0].name: found}
        threads, variant = bundle.threads, bundle.variant.name
    write_arrays(args.output, results)
    for name, array in results.items():
        console.say(
            f"{name}: {array.shape} from {array.min(initial=float('inf')):g} to {array.max(initial=float('-inf')):g}"
            if array.size
            else f"{name}: {array.shape}"
        )
    console.say(
        f"{args.output}: {len(results)} output{'s' * (len(results) != 1)} in {console.seconds(seconds)} on "
        f"{threads} thread{'s' * (threads != 1)}, as {variant}"
    )
    return {
        "output": args.output,
        "seconds": seconds,
        "threads": threads,
        "variant": variant,
        "shapes": {name: list(array.shape) for name, array in results.items()},
    }
