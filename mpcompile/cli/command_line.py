"""The command line: verbs over the Python API. Bad input ends with one line and its own exit code, never a traceback.

0 done · 1 verify found a difference · 2 usage · 3 bad model or bundle · 4 target or device · 5 missing dependency ·
70 a fault of mpcompile itself · 130 interrupted · 141 the reader of our output went away · 143 terminated
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module

from mpcompile import __version__
from mpcompile.cli.address_space import check_address_space
from mpcompile.cli.console import complain
from mpcompile.cli.interrupts import Interruptions
from mpcompile.errors import MissingDependency, MpError, ResourceError, UsageError, lack_of_memory
from mpcompile.files import atomic_path, check_writable, is_stream, write_stream

INTERNAL, INTERRUPTED, CLOSED_PIPE, TERMINATED = 70, 130, 141, 143
STDOUT = "-"
"""As --json's FILE; tables and lines go to stderr then."""

VERBS = {
    "doctor": "what works on this machine, and what is missing, with the command that mends it",
    "targets": "the boards, and for each bit pair the family expected fastest",
    "compile": "a QONNX or QDQ file to a bundle",
    "quantize": "a float ONNX file to QONNX after training, its bits uniform or chosen layer by layer under a budget",
    "run": "a bundle on arrays of a .npz file",
    "bench": "a bundle's time from end to end, beside ONNX Runtime's in the same run",
    "verify": "a bundle against the exact reference, buffer by buffer",
    "profile": "a model's time layer by layer; with --bits the whole latency table",
    "tune": "each layer's schedule, searched by measuring here; records for compile --records",
    "search": "bits for every layer, by gradient, against measured latency; a front of networks",
    "report": "a search's folder as one HTML file, and its numbers as JSON",
    "serve": "offer this machine to hosts, as a device that runs and times what they send",
    "tracker": "lend devices by key, as TVM's tracker does",
    "devices": "who is there at a tracker, who is busy, and for how long",
    "inspect": "what a bundle or a model holds, layer by layer",
}
"""Each verb lives in verbs/, in the module of its name: arguments(parser), work(args)."""


class _Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is one line too."""

    def error(self, message: str):
        complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(UsageError.exit_code)


def parser() -> argparse.ArgumentParser:
    """All verbs with their options. Loads none of what they need."""
    assert __doc__
    shared = _Parser(add_help=False)
    shared.add_argument("--json", metavar="FILE", help="write the result as JSON, too (-: to stdout, tables to stderr)")
    shared.add_argument("--debug", action="store_true", help="show a traceback where something fails")
    top = _Parser(
        prog="mpcompile",
        description=__doc__.split("\n")[0],
        epilog="exit codes: " + " ".join(__doc__.split("\n\n")[1].split()),
    )
    top.add_argument("--version", action="version", version=f"mpcompile {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for name, told in VERBS.items():
        sub = verbs.add_parser(name, help=told, description=told[0].upper() + told[1:] + ".", parents=[shared])
        _module(name).arguments(sub)
        sub.set_defaults(work=_module(name).work)
    return top


def _module(verb: str):
    return import_module(f"mpcompile.cli.verbs.{verb}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code. A verb's `work(args)` returns what --json writes, or (that, exit code)."""
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    with Interruptions() as interruptions:
        try:
            return _guarded(lambda: _run(parser().parse_args(argv)), debug, interruptions)
        except SystemExit as stop:  # argparse: --help, --version, a wrong command line
            return stop.code if isinstance(stop.code, int) else 0


def _run(args: argparse.Namespace) -> int:
    check_address_space()
    piped = args.json == STDOUT
    _check_outputs(vars(args) | {"json": None} if piped else vars(args))
    with redirect_stdout(sys.stderr) if piped else nullcontext():
        result = args.work(args)
    found, code = result if isinstance(result, tuple) else (result, 0)
    sys.stdout.flush()
    if args.json:
        text = json.dumps(found, indent=1) + "\n"
        if piped:
            print(text, end="", flush=True)
        elif is_stream(args.json):
            write_stream(args.json, text)
        else:
            with atomic_path(args.json) as temporary:
                temporary.write_text(text)
    return code


def _check_outputs(given: dict) -> None:
    """Raises UsageError where --json cannot be written, or an output would replace another file of the command line."""
    if given["json"] and not is_stream(given["json"]):
        check_writable(given["json"])
    files = {}
    for option in ("model", "bundle", "file", "calibration", "table", "input", "inputs", "vs_onnx", "output", "json"):
        value = given.get(option) or []
        for path in [value] if isinstance(value, str) else value:
            real = os.path.realpath(path)
            if option in ("output", "json") and real in files and not is_stream(path):
                raise UsageError(f"cannot write {path}: it is already the command's {files[real]}")
            files.setdefault(real, option)


def _guarded(work: Callable[[], int], debug: bool, interruptions: Interruptions) -> int:
    """Exceptions to one line and an exit code; with `debug` the traceback before it."""
    try:
        return work()
    except KeyboardInterrupt:
        return _interrupted(interruptions)
    except BrokenPipeError:
        _drop_output()
        return CLOSED_PIPE
    except Exception as error:
        if interruptions.code is not None:
            return _interrupted(interruptions)
        if debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, ModuleNotFoundError) and (error.name or "mpcompile").split(".")[0] != "mpcompile":
            error = MissingDependency(
                f"this needs the Python package {error.name}, which is not installed: pip install "
                f'"mpcompile[all]", or only what `mpcompile doctor` names'
            )
        error = lack_of_memory(error) or error
        if isinstance(error, OSError):  # a full disk, a folder without permission
            _drop_output()
            error = ResourceError(
                f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
            )
        if isinstance(error, MpError):
            complain(str(error))
            return error.exit_code
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        complain(f"a fault of mpcompile itself: {type(error).__name__}: {reason.strip()}; --debug shows where")
        return INTERNAL


def _drop_output() -> None:
    """What stdout does not take: Python would complain of it once more as it ends, and end with a status of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(interruptions: Interruptions) -> int:
    if interruptions.code == TERMINATED:
        return TERMINATED
    complain("interrupted")
    return INTERRUPTED
