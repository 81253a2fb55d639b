"""`--shape images=1x3x640x640`: sizes that a model file leaves open."""

from __future__ import annotations

import argparse


def arguments(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="INPUT=1x3x640x640",
        help="the shape of an input whose sizes the model leaves open (may be given several times)",
    )


def shapes(args: argparse.Namespace) -> dict[str, list[int]]:
    """Input → its shape. Raises UsageError at what is none."""
    from mpcompile.errors import UsageError

    found: dict[str, list[int]] = {}
    for given in args.shape:
        name, _, sizes = given.rpartition("=")
        parts = sizes.split("x")
        if not name or not all(part.isdecimal() for part in parts):
            raise UsageError(
                f"--shape {given}: the name of an input and its sizes would be accepted, as INPUT=1x3x640x640"
            )
        if name in found:
            raise UsageError(f"--shape {given}: the input has a shape already")
        found[name] = [int(part) for part in parts]
    return found
