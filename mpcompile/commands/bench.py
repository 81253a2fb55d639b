"""mpcompile bench M.mpc [--vs-onnx OTHER.onnx]"""

from __future__ import annotations

import argparse
from pathlib import Path

from mpcompile import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="M.mpc")
    parser.add_argument(
        "--vs-onnx",
        action="append",
        default=[],
        metavar="OTHER.onnx",
        help="also time this model in ONNX Runtime, in turn with the bundle (may be given several times)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all physical cores")
    parser.add_argument("--variant", metavar="NAME", help="of the bundle (default: the best for this CPU)")
    parser.add_argument(
        "--rounds", type=int, default=21, metavar="N", help="good samples of each (default: %(default)s)"
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import UsageError
    from mpcompile.latency import onnxruntime
    from mpcompile.latency.measure import measure
    from mpcompile.runtime import open_bundle

    if args.rounds < 1:
        raise UsageError(f"--rounds must be at least 1, not {args.rounds}")
    with (open_bundle(args.bundle, threads=args.threads, variant=args.variant) as bundle,
          console.progress("measuring") as update):
        threads, variant = bundle.threads, bundle.variant.name
        subjects = {Path(args.bundle).name: bundle.timer()}
        for other in args.vs_onnx:
            if not Path(other).is_file():
                raise UsageError(f"{other}: no such file")
            subjects[f"ONNX Runtime, {Path(other).name}"] = onnxruntime.timer(onnxruntime.session(other, threads))
        found = measure(subjects, rounds=args.rounds, progress=update)
    ours = found.timings[next(iter(subjects))]
    console.table(
        ("what", ">median", ">quartiles", ">spread", ">bundle is faster by"),
        [
            (
                name,
                console.seconds(t.seconds),
                f"{console.seconds(t.low)} – {console.seconds(t.high)}",
                f"{t.spread:.1%}",
                "" if t is ours else f"{t.seconds / ours.seconds:.2f}×",
            )
            for name, t in found.timings.items()
        ],
    )
    console.say(f"{threads} thread{'s' * (threads != 1)}, as {variant}; {found.note()}")
    return {
        "threads": threads,
        "variant": variant,
        **found.to_json(),
        "ratios": {name: t.seconds / ours.seconds for name, t in found.timings.items() if t is not ours},
    }
