"""--tracker and --key: the devices that a verb measures or runs on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mpcompile.cli import console

if TYPE_CHECKING:
    from mpcompile.remote.pool import DevicePool
    from mpcompile.runtime.variants import Variant


def arguments(parser: argparse.ArgumentParser, does: str) -> None:
    """`does`: what the verb does on devices, for the help."""
    group = parser.add_argument_group("devices", f"without them, {does} here")
    group.add_argument(
        "--tracker", metavar="HOST:PORT", help="of the tracker that lends devices (default: $MPCOMPILE_TRACKER)"
    )
    group.add_argument("--key", metavar="K", help=f"{does} on the devices that were served under this key")


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[DevicePool]:
    """The devices, or this machine; given back when the block ends. What becomes of them goes to stderr as it happens,
    and a summary at the end."""
    from mpcompile.remote.pool import open_pool

    with open_pool(args.tracker, args.key, warn=console.complain) as pool:
        yield pool
        if pool.source:
            summary(pool)


def chosen(pool: DevicePool, bundle: str, threads: int | None, variant: str | None) -> tuple[Variant, int]:
    """The variant of a bundle that the devices run, and on how many threads. Raises UsageError, ModelError,
    TargetError, before anything is sent."""
    from mpcompile.remote.fit import threads_on
    from mpcompile.runtime.archive import read_manifest
    from mpcompile.runtime.variants import pick, variants_of

    about = pool.about
    variants = variants_of(bundle, read_manifest(bundle))
    return pick(bundle, variants, variant, about.machines(pool.name)), threads_on(about, threads)


def summary(pool: DevicePool) -> None:
    """A line for each device that took part."""
    for line in pool.summary():
        console.say(line)
