"""Orders of elements: what reshapes and transposes, one after another, make of a tensor's elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Order:
    """Element number i (row-major) of the result is element Σ digit·stride of the input: the digits are those of i in a
    mixed radix. `digits`: (size, stride) of each, the outermost first. Every element of the input comes once."""

    digits: tuple[tuple[int, int], ...]

    @staticmethod
    def of(indices: np.ndarray) -> Order | None:
        """The order in which element i is element indices[i]; None where that is no such order."""
        flat = left = np.asarray(indices).reshape(-1)
        digits: list[tuple[int, int]] = []
        while len(left) > 1:
            stride = int(left[1] - left[0])
            other = np.flatnonzero(np.diff(left) != stride)
            size = int(other[0]) + 1 if len(other) else len(left)
            if stride < 1 or len(left) % size:
                return None
            digits.insert(0, (size, stride))
            left = left[::size]
        found = Order(tuple(digits))
        return found if np.array_equal(found.indices(), flat) else None

    def indices(self) -> np.ndarray:
        """int64 [elements]: of the result's elements, their numbers in the input."""
        found = np.zeros(1, np.int64)
        for size, stride in self.digits:
            found = (found[:, None] + stride * np.arange(size)).reshape(-1)
        return found

    @property
    def size(self) -> int:
        return int(np.prod([size for size, _ in self.digits], dtype=np.int64))

    @property
    def moves_nothing(self) -> bool:
        return all(stride == 1 for _, stride in self.digits[-1:]) and len(self.digits) < 2

    def then(self, other: Order) -> Order | None:
        """What `other` makes of this one's result; None where that is no order of this kind."""
        return Order.of(self.indices()[other.indices()])

    def inverse(self) -> Order:
        """What takes the result back to the input."""
        found = Order.of(np.argsort(self.indices()))
        assert found is not None, "an order's inverse is one too"
        return found

    def between(self, shape: tuple[int, ...], result: tuple[int, ...]) -> tuple[tuple[Part, ...], ...] | None:
        """For each axis of an input of `shape`, the parts that its index is the sum of, for a result of the shape
        `result`; None where some digit lies in two axes."""
        weight, found = 1, []
        ends, starts = _ends(result), _ends(shape)
        todo = [(size, stride) for size, stride in self.digits]
        while todo:
            size, stride = todo.pop()
            for low, boundaries in ((weight, ends), (stride, starts)):
                inside = [b for b in boundaries if low < b < low * size]
                if inside:
                    if inside[0] % low or size % (inside[0] // low):
                        return None
                    inner = inside[0] // low
                    todo += [(size // inner, stride * inner), (inner, stride)]
                    break
            else:
                found.append((size, weight, stride))
                weight *= size
        axes: list[list[Part]] = [[] for _ in shape]
        for size, weight, stride in found:
            of, begin = _axis(result, weight)
            to, unit = _axis(shape, stride)
            axes[to].append(Part(of, weight // begin, size, stride // unit, weight // begin * size == result[of]))
        return tuple(map(tuple, axes))


@dataclass(frozen=True)
class Part:
    """multiplier·((i // divisor) mod size), where i is the index along `axis` of the result. `last`: nothing is above it in
    that axis, so that the remainder need not be taken."""

    axis: int
    divisor: int
    size: int
    multiplier: int
    last: bool


def _ends(shape: tuple[int, ...]) -> list[int]:
    """How many elements lie in each axis and all behind it, the least first."""
    return [int(np.prod(shape[axis:], dtype=np.int64)) for axis in reversed(range(len(shape)))]


def _axis(shape: tuple[int, ...], weight: int) -> tuple[int, int]:
    """The axis in which a step of so many elements lies, and the elements of a step of 1 along it."""
    for axis in reversed(range(len(shape))):
        below = int(np.prod(shape[axis + 1 :], dtype=np.int64))
        if below <= weight < below * shape[axis]:
            return axis, below
    raise ValueError(f"no axis of {list(shape)} has a step of {weight} elements")
