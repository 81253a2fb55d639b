"""Orders of elements: found in indices, joined, undone, and by axes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcompile.ir.order import Order


def moved(sizes, perm):
    """Indices of a tensor of `sizes` after a transpose."""
    return np.arange(np.prod(sizes, dtype=np.int64)).reshape(sizes).transpose(perm).reshape(-1)


@st.composite
def transposes(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    return sizes, draw(st.permutations(range(len(sizes))))


@given(transposes())
def test_a_transpose_is_an_order(how):
    indices = moved(*how)
    order = Order.of(indices)
    assert order is not None
    np.testing.assert_array_equal(order.indices(), indices)
    back = order.then(order.inverse())
    assert back is not None and back.moves_nothing
    assert order.moves_nothing == np.array_equal(indices, np.arange(len(indices)))


@pytest.mark.parametrize("indices", [[0, 2, 1], [1, 0], [0, 0, 1, 1], [0, 1, 3, 2], [0, 2, 4, 1, 3, 6]], ids=str)
def test_what_is_no_order(indices):
    assert Order.of(np.array(indices)) is None


def test_digits_by_hand():
    assert Order.of(moved((2, 3), (1, 0))) == Order(((3, 1), (2, 3)))
    assert Order.of(np.arange(12)) == Order(((12, 1),))
    assert Order.of(np.arange(1)) == Order(())
    assert Order.of(moved((2, 3, 2), (1, 0, 2))) == Order(((3, 2), (2, 6), (2, 1)))


def test_orders_that_join_to_none():
    """Digits of 3 and 4 of what is 4 rows of 3."""
    first, second = Order.of(moved((3, 4), (1, 0))), Order.of(moved((3, 4), (1, 0)))
    assert first is not None and second is not None and first.then(second) is None


@given(transposes(), st.data())
def test_parts_of_axes_are_the_elements(how, data):
    """Where an order has parts, they give each element's place in the input."""
    indices = moved(*how)
    order = Order.of(indices)
    assert order is not None

    def shape():
        n, found = len(indices), []
        for _ in range(2):
            found.append(data.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0])))
            n //= found[-1]
        return *found, n

    before, after = shape(), shape()
    axes = order.between(before, after)
    if axes is None:
        return
    at = np.indices(after).reshape(3, -1)
    place = []
    for parts in axes:
        total = np.zeros(len(indices), np.int64)
        for p in parts:
            i = at[p.axis] // p.divisor
            total += p.multiplier * (i if p.last else i % p.size)
        place.append(total)
    np.testing.assert_array_equal(np.ravel_multi_index(place, before), indices)


def test_a_block_of_pixels_has_parts_in_its_axes():
    """Depth to space: each axis of the input is one digit, or the channels three."""
    order = Order.of(np.arange(96).reshape(2, 2, 4, 2, 3).transpose(2, 3, 0, 4, 1))
    assert order is not None
    axes = order.between((16, 2, 3), (4, 4, 6))
    assert axes is not None and [len(parts) for parts in axes] == [3, 1, 1]
    assert order.between((16, 3, 2), (4, 4, 6)) is None
