"""bench --ssh: a network's time on a board that has no TVM, as a C program over ssh."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpcompile.cli import console, shape_option
from mpcompile.temporary import temporary_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "boards without TVM",
        "32-bit ones, say: the network as a C library in a small program, which ssh copies there, runs and removes",
    )
    group.add_argument("--ssh", metavar="[USER@]HOST", help="time it there")
    group.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="as ssh -o takes it (Port=2222); may be given several times. ~/.ssh/config holds, too",
    )
    group.add_argument("--target", metavar="T", help="the board that MODEL.onnx is compiled for")
    group.add_argument("--records", metavar="DIR", help="schedules that tune wrote there, or none, as compile has it")
    shape_option.arguments(group)


def check(args: argparse.Namespace) -> None:
    """Raises UsageError where options of one way to measure are given with the other."""
    from mpcompile.errors import UsageError

    given = [
        name
        for name, value in (
            ("--ssh-option", args.ssh_option),
            ("--target", args.target),
            ("--records", args.records),
            ("--shape", args.shape),
        )
        if value
    ]
    if not args.ssh and given:
        raise UsageError(f"{given[0]} goes with --ssh: a bundle is timed as it was compiled")
    if args.ssh:
        others = [
            name
            for name, value in (
                ("--vs-onnx", args.vs_onnx),
                ("--variant", args.variant),
                ("--tracker", args.tracker),
                ("--key", args.key),
            )
            if value
        ]
        if others:
            raise UsageError(f"{others[0]} does not go with --ssh: there is neither ONNX Runtime nor TVM on that board")
        if args.threads is not None and args.threads < 1:
            raise UsageError(f"--threads must be at least 1, not {args.threads}")


def work(args: argparse.Namespace) -> dict:
    from mpcompile.compiler.c_export.runner import build_runner
    from mpcompile.latency.measure import measure
    from mpcompile.remote.ssh import RemoteProgram

    with temporary_folder() as temporary:
        with console.steps() as step:
            library = _library(args, temporary / "c", step)
            step(f"linking a program for {library.target}")
            program = build_runner(library, temporary / "runner")
        with (
            RemoteProgram(args.ssh, program, [str(args.threads or 0)], args.ssh_option) as board,
            console.progress("measuring") as update,
        ):
            before = board.state()
            name = Path(args.bundle).name
            found = measure(
                {name: board.timer("run")}, rounds=args.rounds, reference=board.timer("reference"), progress=update
            )
            after, about = board.state(), board.about
    timing = found.timings[name]
    console.table(
        ("what", ">median", ">quartiles", ">spread"),
        [
            (
                name,
                console.seconds(timing.seconds),
                f"{console.seconds(timing.low)} – {console.seconds(timing.high)}",
                f"{timing.spread:.1%}",
            )
        ],
    )
    threads = about["threads"]
    console.say(
        f"{threads} thread{'s' * (threads != 1)}, as {library.target}, on {args.ssh} ({about['cpu']}); {found.note()}"
    )
    if after.clock:
        heat = "" if after.temperature is None else f", {after.temperature:.0f} °C"
        console.say(f"its clock: {after.governor}, {before.clock} → {after.clock} MHz{heat}")
    for complaint in (complaints := after.complaints(before)):
        console.complain(f"warning: {args.ssh}: {complaint}: its times are those of a slower board")
    return {
        "threads": threads,
        "variant": library.target,
        "device": args.ssh,
        "cpu": about["cpu"],
        "outputs": about["outputs"],
        "workspace_bytes": about["workspace"],
        "state": {"before": before.to_json(), "after": after.to_json()},
        "complaints": complaints,
        **found.to_json(),
        "ratios": {},
    }


def _library(args: argparse.Namespace, folder: Path, step):
    """The exported network: of the folder that was given, or made from the model."""
    import mpcompile as mp
    from mpcompile.cli.doctor import require_compiler
    from mpcompile.compiler.c_export.runner import exported
    from mpcompile.errors import UsageError

    given = Path(args.bundle)
    if given.is_dir():
        if args.target or args.records or args.shape:
            raise UsageError(f"{given} is compiled already: --target, --records and --shape go with a model")
        return exported(given)
    if given.suffix == ".mpc":
        raise UsageError(
            f"{given} is a bundle, which needs TVM: with --ssh give the model, or a folder of compile --format c"
        )
    if not given.exists():
        raise UsageError(f"{given}: no such file or folder")
    if not args.target:
        raise UsageError("--ssh needs --target: which board the model is compiled for")
    require_compiler()
    shapes = shape_option.shapes(args)
    mp.export_c(args.bundle, args.target, folder, shapes=shapes, name="network", records=args.records, progress=step)
    return exported(folder)
