"""Which kernel family a contraction gets, by the families' cost models; what a board is expected to be fastest at. No
TVM here."""

from __future__ import annotations

from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.families import families
from mpcompile.targets import Target

WINDOW_SUM = 1 / 4
"""Cycles to add a tap of a window sum, which all output channels of a pixel share."""


def candidates(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> list[tuple[str, float]]:
    """(family, cycles) of every family that can compute `part`, cheapest first. `output` = (HO, WO)."""
    costs: dict[str, float] = {}
    for family in families():
        cycles = family.cycles(part, in_grid, target, output)
        if cycles is None:
            continue
        if family.sums(part):
            _, _, kh, kw = part.q.shape
            cycles += output[0] * output[1] * kh * kw * WINDOW_SUM
        if family.only:
            return [(family.name, cycles)]
        costs[family.name] = cycles
    return sorted(costs.items(), key=lambda item: item[1])


def expected_rates(target: Target, weight_planes: int, activation_planes: int) -> dict[str, float]:
    """Products a cycle of one core of each family for a long inner product of so many planes, by the board's figures
    alone. Families of which these say nothing are left out."""
    rates = {f.name: f.rate(target, weight_planes, activation_planes) for f in families()}
    return {name: rate for name, rate in rates.items() if rate > 0}


def expected_family(target: Target, weight_planes: int, activation_planes: int) -> str:
    """The fastest of `expected_rates`."""
    rates = expected_rates(target, weight_planes, activation_planes)
    return max(rates, key=rates.__getitem__)


def expected_gain(target: Target, weight_planes: int, activation_planes: int) -> float:
    """How many times faster than int8 the expected family is; at least 1."""
    return max(expected_rates(target, weight_planes, activation_planes).values()) / target.dot_macs_per_cycle
