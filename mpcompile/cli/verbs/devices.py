"""mpcompile devices [--tracker HOST:PORT] [--key K]"""

from __future__ import annotations

import argparse
import os

from mpcompile.cli import console

TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq", "neon", "vfpv4", "asimd", "asimddp", "asimdhp")
"""Of a CPU's features, those that decide which kernels it takes."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tracker", metavar="HOST:PORT", help="default: $MPCOMPILE_TRACKER")
    parser.add_argument("--key", metavar="K", help="only devices of this key")


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import TargetError, UsageError
    from mpcompile.remote.pool import TRACKER
    from mpcompile.remote.tracker import devices

    tracker = args.tracker or os.environ.get(TRACKER)
    if not tracker:
        raise UsageError(f"name a tracker: --tracker HOST:PORT, or {TRACKER}=HOST:PORT in the environment")

    listed = devices(tracker)
    found = [d for d in listed if args.key in (None, d.key)]
    if args.key and not found:
        keys = ", ".join(sorted({d.key for d in listed})) or "none at all"
        raise TargetError(f"the tracker {tracker} has no device of key {args.key}: it has {keys}")
    console.table(
        ("key", "address", "is", "CPU; CUDA device", ">cores", "clock", ">°C", "mpcompile, TVM", "features"),
        [_row(d) for d in found],
    )
    for d in found:
        for complaint in _complaints(d.told):
            console.say(f"{d.key} at {d.address[0]}:{d.address[1]}: {complaint}")
    free = sum(bool(d.told.get("free")) for d in found)
    console.say(f"{tracker}: {len(found)} device{'s' * (len(found) != 1)}, {free} free")
    return {"tracker": tracker, "devices": [{"key": d.key, "address": list(d.address), **d.told} for d in found]}


def _row(d) -> tuple:
    where = f"{d.address[0]}:{d.address[1]}"
    if not d.told:
        return d.key, where, "another server, TVM's own or of another mpcompile", *[""] * 6
    about, state = d.told["about"], d.told["state"]
    span = _span(d.told["seconds"])
    client = f" ({d.told['client']})" if d.told["client"] else ""
    use = f"free for {span}" if d.told["free"] else f"busy for {span}{client}"
    clock = f"{state['clock'] or about['clock']} MHz" if state["clock"] or about["clock"] else ""
    cpu, clock = f"{about['arch']} {about['cpu']}", f"{clock} {state['governor']}".strip()
    if about["cuda"]:
        cpu += f"; {about['cuda']} ({about['cuda_arch']}, {console.size(about['cuda_memory'])})"
    return (
        d.key,
        where,
        use,
        cpu,
        about["cores"],
        clock,
        "" if state["temperature"] is None else f"{state['temperature']:.0f}",
        f"{about['mpcompile']}, {about['tvm']}",
        ", ".join(f for f in TELLING if f in about["features"]),
    )


def _complaints(told: dict) -> list[str]:
    from mpcompile.runtime.state import State

    return State.from_json(told["state"]).complaints() if told else []


def _span(seconds: float) -> str:
    for unit, letter in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {letter}"
    return f"{seconds:.0f} s"
