"""mpcompile bench M.mpc [--vs-onnx OTHER.onnx] [--tracker H:P --key K], or MODEL.onnx --target T --ssh HOST"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mpcompile.cli import console, device_options, ssh_options

MIN_TIME = 0.001
"""Seconds of one sample."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="M.mpc", help="with --ssh MODEL.onnx, or what compile --format c wrote")
    parser.add_argument(
        "--vs-onnx",
        action="append",
        default=[],
        metavar="OTHER.onnx",
        help="also time this model in ONNX Runtime, in turn with the bundle (may be given several times)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: the physical cores")
    parser.add_argument("--variant", metavar="NAME", help="of the bundle (default: the best for the CPU)")
    parser.add_argument(
        "--rounds", type=int, default=21, metavar="N", help="good samples of each (default: %(default)s)"
    )
    device_options.arguments(parser, "measure")
    ssh_options.arguments(parser)


def _others(files: Sequence[str]) -> dict[str, Path]:
    """What ONNX Runtime runs, by the names that are shown: files of one name in several folders by their paths."""
    from mpcompile.errors import UsageError

    for file in files:
        if not Path(file).is_file():
            raise UsageError(f"{file} is a folder, not a file" if Path(file).is_dir() else f"{file}: no such file")
        if Path(file).suffix != ".onnx":
            raise UsageError(f"--vs-onnx {file}: a file whose name ends in .onnx would be accepted")
    names = [Path(file).name for file in files]
    return {f"ONNX Runtime, {name if names.count(name) == 1 else file}": Path(file) for name, file in zip(names, files)}


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import MissingDependency, UsageError
    from mpcompile.latency import onnxruntime

    if args.rounds < 1:
        raise UsageError(f"--rounds must be at least 1, not {args.rounds}")
    ssh_options.check(args)
    if args.ssh:
        return ssh_options.work(args)
    subjects = {Path(args.bundle).name: Path(args.bundle), **_others(args.vs_onnx)}
    with device_options.opened(args) as pool:
        variant, threads = device_options.chosen(pool, args.bundle, args.threads, args.variant)
        if args.vs_onnx and not pool.source:
            onnxruntime.require()
        elif args.vs_onnx and not pool.about.onnxruntime:
            raise MissingDependency(
                f"--vs-onnx is timed by ONNX Runtime on the device, and {pool.name} has none; "
                "leave it out, or there: pip install onnxruntime==1.31.1"
            )
        with console.progress("measuring") as update:
            found = pool.run(
                lambda device: device.race(
                    subjects, threads, rounds=args.rounds, min_time=MIN_TIME, variant=variant.name, progress=update
                )
            )
        device = pool.last if pool.source else None
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
    where = f", on {device}" if device else ""
    console.say(f"{threads} thread{'s' * (threads != 1)}, as {variant.name}{where}; {found.note()}")
    return {
        "threads": threads,
        "variant": variant.name,
        **({"device": device} if device else {}),
        **found.to_json(),
        "ratios": {name: t.seconds / ours.seconds for name, t in found.timings.items() if t is not ours},
    }
