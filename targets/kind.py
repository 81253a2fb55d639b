"""Kinds of devices: what a board of each kind has by default. KINDS has their records by name.

Each room that treats kinds differently has its own record of them, under the same name: how TVM's target is made and how
code becomes a binary (mpcompile.compiler.backend), which primitives kernels are made of (mpcompile.kernels.primitives),
schedules (mpcompile.schedules), how code is loaded and run and what a device is (mpcompile.runtime.driver). A new kind is
a record in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mpcompile.targets.registry import Registry


@dataclass(frozen=True)
class StorageCosts:
    """Cycles a stored value to `write` a form of it (for planes: each plane), and to `read` it back one by one, not
    through a contraction. They decide between choices whose contractions cost about the same, no more."""

    write: Mapping[str, float]
    read: Mapping[str, float]


@dataclass(frozen=True)
class Kind:
    """`storage`: what storing costs on a board of this kind."""

    name: str
    storage: StorageCosts


CPU = Kind(
    "cpu",
    # At 512-bit vectors.
    StorageCosts(
        write={"codes": 1 / 16, "planes": 1 / 16, "sums": 1 / 8},
        read={"codes": 1 / 16, "planes": 1 / 4},
    ),
)

CUDA = Kind(
    "cuda",
    # Of a multiprocessor, by bytes: 64 a cycle from the second cache.
    StorageCosts(
        write={"codes": 1 / 64, "planes": 1 / 512, "sums": 1 / 64},
        read={"codes": 1 / 64, "planes": 1 / 128},
    ),
)

KINDS: Registry[Kind] = Registry("kind of device", {kind.name: kind for kind in (CPU, CUDA)})
