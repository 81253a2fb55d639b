"""Bitwidths of weights and activations as values: one pair of them, and the candidates that are measured or searched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mpcompile.errors import UsageError


class BitPair(tuple[int, int]):
    """(weight bits, activation bits); as text "w2a4". Equals the plain tuple of both."""

    __slots__ = ()

    def __new__(cls, weights: int, activations: int) -> BitPair:
        return super().__new__(cls, (weights, activations))

    def __getnewargs__(self) -> tuple[int, int]:
        return self.weights, self.activations

    @property
    def weights(self) -> int:
        return self[0]

    @property
    def activations(self) -> int:
        return self[1]

    @staticmethod
    def parse(text: str) -> BitPair:
        """ "w2a4", in capitals too, each 1 to 8. Raises UsageError at anything else."""
        found = re.fullmatch(r"w([1-8])a([1-8])", text.lower())
        if not found:
            raise UsageError(
                f"bits {text!r} are not like w2a4: weight bits after w, activation bits after a, each 1 to 8"
            )
        return BitPair(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"w{self.weights}a{self.activations}"

    def __repr__(self) -> str:
        return f"BitPair({self.weights}, {self.activations})"


@dataclass(frozen=True)
class BitCandidates:
    """Bitwidths to choose among, each ascending; as text "w1234a1248". Iterates over all pairs."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]

    @staticmethod
    def of(weights: Iterable[int], activations: Iterable[int]) -> BitCandidates:
        """In any order, repeated or not."""
        return BitCandidates(tuple(sorted(set(weights))), tuple(sorted(set(activations))))

    @staticmethod
    def parse(text: str) -> BitCandidates:
        """ "w1234a1248", in capitals too, each digit a bitwidth from 1 to 8, in any order. Raises UsageError at anything
        else."""
        found = re.fullmatch(r"w([1-8]+)a([1-8]+)", text.lower())
        if not found:
            raise UsageError(
                f"bits {text!r} are not like w1234a1248: weight bits after w, activation bits after a, each 1 to 8"
            )
        return BitCandidates.of(map(int, found[1]), map(int, found[2]))

    def __iter__(self) -> Iterator[BitPair]:
        return (BitPair(w, a) for w in self.weights for a in self.activations)

    def __contains__(self, pair: object) -> bool:
        return isinstance(pair, tuple) and len(pair) == 2 and pair[0] in self.weights and pair[1] in self.activations

    def __str__(self) -> str:
        return f"w{''.join(map(str, self.weights))}a{''.join(map(str, self.activations))}"
