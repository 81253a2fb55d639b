"""The static allocation: nothing that is alive at once overlaps, and the block stays close to what must be alive."""

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
