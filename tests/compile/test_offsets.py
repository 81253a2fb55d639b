"""The static allocation: nothing that is alive at once overlaps, and the block stays close to what must be alive."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcompile.compiler.offsets import ALIGNMENT, Interval, aligned, live_bytes, place


@st.composite
def lifetimes(draw) -> list[Interval]:
    """Buffers of a random graph: written by a call, read by calls soon after, some by a late skip."""
    found = []
    for call in range(draw(st.integers(1, 25))):
        for _ in range(draw(st.integers(1, 3))):
            reach = draw(st.one_of(st.integers(0, 2), st.integers(0, 20)))
            found.append(Interval(draw(st.one_of(st.integers(1, 200), st.integers(1, 1 << 20))), call, call + reach))
    return found


@settings(max_examples=300, deadline=None)
@given(lifetimes())
def test_live_buffers_never_overlap(intervals):
    offsets, size = place(intervals)
    for i, (a, start) in enumerate(zip(intervals, offsets)):
        assert start % ALIGNMENT == 0 and start + a.nbytes <= size
        for b, other in zip(intervals[:i], offsets):
            assert not a.meets(b) or start + a.nbytes <= other or other + b.nbytes <= start


@settings(max_examples=300, deadline=None)
@given(lifetimes())
def test_the_block_is_at_most_twice_what_is_alive(intervals):
    padded = [Interval(aligned(i.nbytes), i.first, i.last) for i in intervals]
    assert live_bytes(intervals) <= live_bytes(padded) <= place(intervals)[1] <= 2 * live_bytes(padded)


def test_a_chain_reuses_its_memory():
    chain = [Interval(1000, call, call + 1) for call in range(50)]
    assert place(chain)[1] == 2 * aligned(1000) and live_bytes(chain) == 2000


def test_nothing_to_place():
    assert place([]) == ([], 0) and live_bytes([]) == 0


def test_a_cache_line_is_what_is_aligned_to():
    assert ALIGNMENT == 64
    assert [aligned(n) for n in (0, 1, 63, 64, 65, 128)] == [0, 64, 64, 64, 128, 128]


def lines(*intervals: tuple[int, int, int]) -> list[Interval]:
    """(cache lines, first call, last call)"""
    return [Interval(64 * n, first, last) for n, first, last in intervals]


@pytest.mark.parametrize(
    "best, intervals, needed",
    [
        ("largest first", lines((2, 4, 7), (6, 3, 3), (1, 1, 2), (2, 2, 4)), 8),
        ("largest area first", lines((3, 2, 4), (3, 4, 6), (2, 3, 6), (4, 2, 2)), 8),
        ("largest area first, both ends counted", lines((3, 2, 3), (4, 0, 0), (4, 0, 2), (3, 2, 5)), 10),
        ("longest first", lines((4, 0, 0), (2, 2, 5), (2, 0, 3), (3, 2, 5)), 7),
        ("in the order of the calls", lines((1, 2, 5), (2, 0, 2), (4, 3, 3), (3, 0, 1)), 5),
    ],
)
def test_each_order_is_the_only_one_that_wastes_nothing_somewhere(best, intervals, needed):
    assert live_bytes(intervals) == 64 * needed == place(intervals)[1]


def test_a_gap_is_filled_to_its_last_byte_and_the_smallest_that_holds_it():
    """The long one lies below, what lives at 0 beside it; what ends before 4 leaves gaps of two lines, and of one."""
    around = lines((8, 0, 9), (2, 0, 3), (7, 0, 9), (1, 0, 3), (6, 0, 9))
    offsets, size = place([*around, *lines((1, 4, 5), (2, 4, 5))])
    assert size == 64 * 24 == live_bytes(around)
    assert offsets[5] == offsets[3] and offsets[6] == offsets[1]


def test_what_ends_with_a_call_meets_what_that_call_writes():
    before, after = Interval(64, 0, 3), Interval(64, 3, 5)
    assert before.meets(after) and after.meets(before)
    assert not before.meets(Interval(64, 4, 5)) and not Interval(64, 4, 5).meets(before)
    assert live_bytes([before, after]) == 128 and live_bytes([before, Interval(64, 4, 5)]) == 64
