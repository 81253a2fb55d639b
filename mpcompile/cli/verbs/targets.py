"""mpcompile targets [T]"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from mpcompile.cli import console

if TYPE_CHECKING:
    from mpcompile.targets import Target

BITS = range(1, 9)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", metavar="T", help="a board: its families for every bit pair; a fleet: its boards"
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import TargetError
    from mpcompile.kernels.select import expected_family, expected_gain
    from mpcompile.targets import list_fleets, list_targets, load_fleet, load_target

    if args.target:
        fleet = load_fleet(args.target)
        target, *others = fleet.boards
        if others:
            return _fleet(fleet)
        families = {f"w{w}a{a}": expected_family(target, w, a) for w in BITS for a in BITS}
        gains = {f"w{w}a{a}": expected_gain(target, w, a) for w in BITS for a in BITS}
        console.say(f"{target.name}: {target.description}; expected fastest for a large convolution:")
        console.table(
            ("weights \\ activations", *(f"{a} bit" for a in BITS)),
            [(f"{w} bit", *(_cell(families[f"w{w}a{a}"], gains[f"w{w}a{a}"]) for a in BITS)) for w in BITS],
        )
        console.say(
            f"×: how much faster than int8 ({families['w8a8']}) on long inner products, before anything is measured."
        )
        console.say("`mpcompile compile` decides for each layer, from its shape.")
        return {**target.to_json(), "families_by_bits": families, "gains_by_bits": gains}
    rows, found = [], []
    for name in list_targets():
        try:
            t = load_target(name)
        except TargetError as error:
            if name != "native":
                raise
            console.complain(str(error))
            continue
        rows.append(
            (
                name,
                t.description,
                t.mcpu,
                t.cores,
                t.vector_bits,
                f"{t.popcount_bitmacs_per_cycle:g}",
                f"{t.dot_macs_per_cycle:g}",
                _expected(t),
            )
        )
        found.append(t.to_json())
    console.table(
        ("target", "board", "LLVM", ">cores", ">vector bits", ">bit-MAC/cycle", ">int8 MAC/cycle", "expected fastest"),
        rows,
    )
    fleets = [load_fleet(name) for name in list_fleets()]
    console.table(
        ("fleet", "of", "a bundle holds code for, best first"),
        [(fleet.name, fleet.description, ", ".join(b.name for b in fleet.boards)) for fleet in fleets],
    )
    return {"targets": found, "fleets": [fleet.to_json() for fleet in fleets]}


def _fleet(fleet) -> dict:
    console.say(f"{fleet.name}: {fleet.description}; a bundle for it holds, best first:")
    console.table(("board", "for", "LLVM"), [(b.name, b.description, b.mcpu) for b in fleet.boards])
    console.say("Opening it picks the first whose features the CPU has.")
    return fleet.to_json() | {"boards": [b.to_json() for b in fleet.boards]}


def _expected(target: Target) -> str:
    """The expected families in few words."""
    from mpcompile.kernels.select import expected_family, expected_rates

    found = Counter(expected_family(target, w, a) for w in BITS for a in BITS)
    few, many = expected_family(target, 1, 1), expected_family(target, 8, 8)
    limit = expected_rates(target, 1, 1)[few] / target.dot_macs_per_cycle
    if all(expected_family(target, w, a) == (few if w * a < limit else many) for w in BITS for a in BITS):
        return f"{few} where w·a < {limit:.2g}, else {many}"
    return ", ".join(f"{family} at {n}" for family, n in found.items()) + f" of {len(BITS) ** 2} bit pairs"


def _cell(family: str, gain: float) -> str:
    return f"{family} {gain:.1f}×" if gain > 1 else family
