"""Constants of several variants: stored once, found where the moved plan says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcompile.ir.plan import Arg, Call, Plan
from mpcompile.runtime.memory import CpuMemory
from mpcompile.runtime.shared_weights import joined, share

POOL = [np.random.default_rng(i).integers(0, 256, n, np.uint8) for i, n in enumerate((1, 4, 63, 64, 65, 200, 256, 7))]


def compiled(picks: list[int]) -> tuple[Plan, bytes]:
    """A plan that reads these constants, each at a multiple of 64 bytes, some twice."""
    weights, calls, places = b"", [], {}
    for pick in picks:
        if pick not in places:
            weights += bytes(-len(weights) % 64)
            places[pick] = len(weights)
            weights += POOL[pick].tobytes()
        out = Arg("workspace", 0, "uint8", (8,))
        calls.append(Call("f", "layer", (Arg("weights", places[pick], "uint8", POOL[pick].shape), out)))
    return Plan((), (), tuple(calls), (), 64, 64), weights


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, len(POOL) - 1), max_size=6), min_size=1, max_size=4))
def test_each_variant_finds_its_constants_and_none_is_stored_twice(variants):
    names = [f"v{i}" for i in range(len(variants))]
    made = [compiled(picks) for picks in variants]
    blocks, shared = share(names, [plan for plan, _ in made], [weights for _, weights in made])
    for picks, (plan, mine) in zip(variants, shared):
        memory = CpuMemory()
        weights = joined(mine, blocks, memory)
        assert weights.ctypes.data % 64 == 0 or not weights.size
        for pick, call in zip(picks, plan.calls, strict=True):
            arg, out = call.args
            assert arg.offset % 64 == 0 and out.offset == 0
            found = memory.get(memory.view(weights, arg.offset, arg.dtype, arg.shape))
            np.testing.assert_array_equal(found, POOL[pick])
    if len(variants) > 1:
        distinct = {pick for picks in variants for pick in picks}
        assert (
            sum(len(POOL[p]) for p in distinct)
            <= sum(map(len, blocks.values()))
            <= 64 * len(distinct) + sum(len(POOL[p]) for p in distinct)
        )
        assert set(blocks) == {name for _, mine in shared for name in mine}


def test_one_variants_weights_stay_as_they_are():
    """Also what no call reads, and where each constant is."""
    plan, _ = compiled([5])
    weights = bytes([7]) * 100
    assert share(["only"], [plan], [weights]) == ({"only.weights": weights}, [(plan, ["only.weights"])])


def test_no_constants_take_no_bytes():
    assert joined([], {"v.weights": b"abc"}, CpuMemory()).size == 0


def test_blocks_follow_one_another_at_multiples_of_64():
    members = {"a": bytes([1]) * 65, "b": bytes([2]) * 64, "c": bytes([3])}
    whole = joined(["a", "b", "c"], members, CpuMemory())
    assert whole.size == 128 + 64 + 1
    assert set(whole[:65]) == {1} and set(whole[128:192]) == {2} and whole[192] == 3


def test_a_block_is_named_by_those_who_read_it_and_holds_what_they_share():
    made = [compiled(picks) for picks in ([5, 0], [0, 7], [0])]
    blocks, shared = share(["a", "b", "c"], [plan for plan, _ in made], [weights for _, weights in made])
    assert blocks == {
        "a.weights": POOL[5].tobytes(),
        "a+b+c.weights": POOL[0].tobytes(),
        "b.weights": POOL[7].tobytes(),
    }
    assert [mine for _, mine in shared] == [
        ["a.weights", "a+b+c.weights"],
        ["a+b+c.weights", "b.weights"],
        ["a+b+c.weights"],
    ]
