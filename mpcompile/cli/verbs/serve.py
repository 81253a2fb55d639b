"""mpcompile serve --key K [--tracker HOST:PORT]"""

from __future__ import annotations

import argparse
import signal
import time
from types import ModuleType
from typing import Any, cast

from mpcompile.cli import console

PORT = 9090
LOOPBACK = ("127.0.0.1", "::1", "localhost")
TUNNEL = (
    "TVM's RPC has no authentication and no encryption: whoever reaches this port can run any code as this user. "
    "Listen on 127.0.0.1 and use an SSH tunnel, or only in a network of which you trust every machine."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", required=True, metavar="K", help="what hosts ask for: name the kind of device (rpi4b)")
    parser.add_argument(
        "--tracker",
        metavar="HOST:PORT",
        help="that lends the device; without one, hosts name this device's own address as their tracker",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, for SSH tunnels)"
    )
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help="default: %(default)s; 0 for any that is free"
    )
    parser.add_argument(
        "--announce",
        metavar="HOST",
        help="where hosts reach it, if not where its tracker sees it: 127.0.0.1 with a tunnel",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="a measurement that takes longer is ended (default: %(default)g)",
    )
    parser.add_argument(
        "--max-memory",
        type=int,
        metavar="MIB",
        help="a measurement that takes more memory is ended (default: half of the device's)",
    )
    parser.add_argument(
        "--max-idle",
        type=float,
        default=3600.0,
        metavar="S",
        help="a host that asks for nothing for longer loses the device (default: %(default)g)",
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import UsageError
    from mpcompile.remote.tracker import parse_address

    if not args.key or not args.key.isprintable() or any(c.isspace() or c == ":" for c in args.key):
        raise UsageError(f"--key {args.key!r}: a name without spaces and colons")
    for option in ("max_seconds", "max_memory", "max_idle"):
        value = getattr(args, option)
        if value is not None and not value > 0:
            raise UsageError(f"--{option.replace('_', '-')} must be more than 0, not {value:g}")
    if not 0 <= args.port < 65536:
        raise UsageError(f"--port must be from 0 to 65535, not {args.port}")
    tracker = parse_address(args.tracker) if args.tracker else None
    with_runtime_only()
    from mpcompile.runtime.server.limits import Limits
    from mpcompile.runtime.server.serve import Server

    limits = Limits(args.max_seconds, (args.max_memory or 0) << 20, args.max_idle)
    server = Server(args.host, args.port, key=args.key, limits=limits, tracker=tracker, announce=args.announce, log=log)
    (host, port), limits = server.address, server.limits
    if host not in LOOPBACK:
        console.complain(f"warning: listening on {host}, not only on this machine. {TUNNEL}")
    where = f"lent by the tracker {args.tracker}" if tracker else f"hosts name it by --tracker {host}:{port}"
    log(
        f"serving {args.key} on {host}:{port}, {where}; a measurement may take {limits.seconds:g} s and "
        f"{limits.memory >> 20} MiB"
    )
    if host in LOOPBACK:
        log("only this machine can connect; from others, through SSH: see --help and the documentation, Devices")
    with Signals(server.stop) as signals:
        server.run()
    signals.again()
    return {}


def with_runtime_only() -> None:
    """For processes that stay: keeps TVM's compiler (250 MB) out of memory, and torch, which TVM imports where it is
    installed. Call it before TVM is imported."""
    import os
    import sys

    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    cast(dict[str, ModuleType | None], sys.modules).setdefault("torch", None)


def log(line: str) -> None:
    console.say(f"{time.strftime('%H:%M:%S')} {line}")


class Signals:
    """While it is entered, Ctrl-C and SIGTERM call `stop`, so that everything ends in its order; `again` then does what
    they would have done."""

    def __init__(self, stop):
        self._stop, self._number = stop, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, _) -> None:
        self._number = number
        self._stop()

    def again(self) -> None:
        if self._number:
            signal.raise_signal(self._number)
