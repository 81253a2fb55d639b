"""What a network's layers amount to."""

from __future__ import annotations

from collections.abc import Mapping

from mpcompile.search.layers import Network


def searched_macs(network: Network) -> dict[str, int]:
    """Multiply-accumulates of the layers whose bits are searched."""
    return {k: m for k, m in network.macs().items() if network.weights[k].searched}


def weight_bytes(network: Network, bits: Mapping[str, int]) -> float:
    """All weights at these bits, at 32 where none are given."""
    return sum(layer.weight.numel() * bits.get(layer.name, 32) for layer in network.layers()) / 8
