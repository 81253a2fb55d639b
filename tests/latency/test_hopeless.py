"""Which planes are not measured, because fewer of them were too slow: told by the times, not by the order they came in."""

from itertools import permutations
from typing import Any, cast

import pytest

from mpcompile.ir.bits import BitPair
from mpcompile.latency.planner import SLOWER, Cell, Planner

NOBODY: Any = None


def cell(w: int, a: int, form: str) -> Cell:
    return Cell("layer", "reads", NOBODY, "conv", BitPair(w, a), form, 1.0)


@pytest.mark.parametrize("codes, expected", [(4.9 / SLOWER, True), (5.1 / SLOWER, False)])
def test_two_pairs_of_as_many_planes_count_by_the_faster(codes, expected):
    """1 pair of planes takes 2, 2 take 3 or, by other noise, 4: each one more takes 1, so 4 take 5."""
    asked, of_codes = cell(2, 2, "planes"), cell(2, 2, "codes")
    times = {cell(1, 1, "planes"): 2.0, cell(1, 2, "planes"): 3.0, cell(2, 1, "planes"): 4.0, of_codes: codes}
    for order in permutations(times.items()):
        assert Planner._hopeless(cast(Planner, NOBODY), asked, dict(order)) is expected
