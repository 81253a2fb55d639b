"""Constants that several variants of a bundle have in common are stored once.

Each constant of each variant goes into the block of exactly those variants that have it; a variant's weights are its
blocks one after another, each at a multiple of 64 bytes. So nothing is stored twice and nothing is read in vain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpcompile.ir.plan import Arg, Plan
from mpcompile.runtime.aligned import ALIGNMENT
from mpcompile.runtime.archive import WEIGHTS as SUFFIX
from mpcompile.runtime.memory import Memory


def share(
    names: Sequence[str], plans: Sequence[Plan], weights: Sequence[bytes]
) -> tuple[dict[str, bytes], list[tuple[Plan, list[str]]]]:
    """(block → its bytes, for each variant its plan over its blocks, and their names in order).

    A block is named by the variants that read it, joined by "+". One variant's weights stay as they are.
    """
    if len(names) == 1:
        return {names[0] + SUFFIX: bytes(weights[0])}, [(plans[0], [names[0] + SUFFIX])]
    owners: dict[bytes, list[int]] = {}
    for i, (plan, data) in enumerate(zip(plans, weights)):
        for constant in dict.fromkeys(_constants(plan, data).values()):
            owners.setdefault(constant, []).append(i)
    blocks: dict[str, bytearray] = {}
    place: dict[bytes, tuple[str, int]] = {}
    for constant, readers in owners.items():
        name = "+".join(names[i] for i in readers) + SUFFIX
        block = blocks.setdefault(name, bytearray())
        block += bytes(-len(block) % ALIGNMENT)
        place[constant] = name, len(block)
        block += constant
    shared = []
    for plan, data in zip(plans, weights):
        constants = _constants(plan, data)
        mine = list(dict.fromkeys(place[c][0] for c in constants.values()))
        starts = dict(zip(mine, _starts([len(blocks[name]) for name in mine])))
        moved = {at: starts[place[c][0]] + place[c][1] for at, c in constants.items()}
        shared.append((_moved(plan, moved), mine))
    return {name: bytes(block) for name, block in blocks.items()}, shared


def joined(blocks: Sequence[str], members: Mapping[str, bytes | memoryview], memory: Memory) -> Any:
    """A block of `memory`: the weights of the variant that reads these members. Those of a single one may stay where
    they are."""
    if len(blocks) == 1:
        return memory.take(np.frombuffer(members[blocks[0]], np.uint8))
    starts = _starts([len(members[name]) for name in blocks])
    whole = memory.alloc(starts[-1] + len(members[blocks[-1]]) if blocks else 0)
    for name, start in zip(blocks, starts):
        data = np.frombuffer(members[name], np.uint8)
        memory.put(memory.view(whole, start, "uint8", data.shape), data)
    return whole


def _starts(sizes: Sequence[int]) -> list[int]:
    """Byte offsets of blocks one after another."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end + -end % ALIGNMENT)
        end = starts[-1] + size
    return starts


def _constants(plan: Plan, weights: bytes) -> dict[int, bytes]:
    """Byte offset → the constant that starts there."""
    found = {}
    for call in plan.calls:
        for arg in call.args:
            if arg.space == "weights":
                nbytes = int(np.prod(arg.shape, dtype=np.int64)) * np.dtype(arg.dtype).itemsize
                found[arg.offset] = bytes(weights[arg.offset : arg.offset + nbytes])
    return found


def _moved(plan: Plan, moved: Mapping[int, int]) -> Plan:
    def place(arg: Arg) -> Arg:
        return replace(arg, offset=moved[arg.offset]) if arg.space == "weights" else arg

    return replace(plan, calls=tuple(replace(c, args=tuple(map(place, c.args))) for c in plan.calls))
