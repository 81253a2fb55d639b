"""mpcompile run M.mpc --input X.npz --output Y.npz [--tracker H:P --key K]"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mpcompile.cli import console, device_options


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="M.mpc")
    parser.add_argument(
        "--input", required=True, metavar="X.npz", help="arrays by input name; a single one may bear any name"
    )
    parser.add_argument("--output", required=True, metavar="Y.npz", help="gets the outputs by name")
    parser.add_argument("--threads", type=int, metavar="N", help="default: the physical cores")
    parser.add_argument("--variant", metavar="NAME", help="of the bundle (default: the best for the CPU)")
    device_options.arguments(parser, "run")


def work(args: argparse.Namespace) -> dict:
    from mpcompile.files import check_writable

    check_writable(args.output)
    results, seconds, where = (_there if args.key or args.tracker else _here)(args)
    from mpcompile.cli.arrays import write_arrays

    write_arrays(args.output, results)
    for name, array in results.items():
        console.say(
            f"{name}: {array.shape} from {float(array.min()):g} to {float(array.max()):g}"
            if array.size
            else f"{name}: {array.shape}"
        )
    threads = where["threads"]
    there = f" of {where['device']}, sent there and back" if "device" in where else ""
    console.say(
        f"{args.output}: {len(results)} output{'s' * (len(results) != 1)} in {console.seconds(seconds)} on "
        f"{threads} thread{'s' * (threads != 1)}{there}, as {where['variant']}"
    )
    return {
        "output": args.output,
        "seconds": seconds,
        **where,
        "shapes": {name: list(array.shape) for name, array in results.items()},
    }


def _here(args: argparse.Namespace) -> tuple[dict, float, dict]:
    """The outputs, the seconds that they took, and on what."""
    from mpcompile.cli.arrays import read_arrays
    from mpcompile.runtime import open_bundle

    with open_bundle(args.bundle, threads=args.threads, variant=args.variant) as bundle:
        arrays = read_arrays(args.input, [p.name for p in bundle.inputs])
        start = time.perf_counter()
        found = bundle.run(arrays)
        seconds = time.perf_counter() - start
        results = found if isinstance(found, dict) else {bundle.outputs[0].name: found}
        return results, seconds, {"threads": bundle.threads, "variant": bundle.variant.name}


def _there(args: argparse.Namespace) -> tuple[dict, float, dict]:
    from mpcompile.cli.arrays import read_arrays

    with device_options.opened(args) as pool:
        variant, threads = device_options.chosen(pool, args.bundle, args.threads, args.variant)
        arrays = read_arrays(args.input, [p.name for p in variant.plan.inputs])
        start = time.perf_counter()
        results = pool.run(lambda device: device.run(Path(args.bundle), arrays, threads, variant=variant.name))
        seconds = time.perf_counter() - start
        return results, seconds, {"threads": threads, "variant": variant.name, "device": pool.last}
