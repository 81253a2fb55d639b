"""mpcompile tracker [--host H] [--port P]"""

from __future__ import annotations

import argparse

from mpcompile.cli import console
from mpcompile.cli.verbs.serve import LOOPBACK, TUNNEL, Signals, log, with_runtime_only


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=9190, metavar="N", help="default: %(default)s; 0 for any that is free"
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.errors import UsageError

    if not 0 <= args.port < 65536:
        raise UsageError(f"--port must be from 0 to 65535, not {args.port}")
    with_runtime_only()
    from mpcompile.runtime.server.lend import Lender

    lender = Lender(args.host, args.port, log)
    host, port = lender.address
    if host not in LOOPBACK:
        console.complain(f"warning: listening on {host}, not only on this machine. {TUNNEL}")
    log(f"tracker on {host}:{port}; devices: mpcompile serve --tracker {host}:{port} --key KEY")
    with Signals(lender.stop) as signals:
        lender.run()
    signals.again()
    return {}
