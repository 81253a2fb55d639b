"""The latency table of a network, built on several devices that are formulas: it is that of one device, whatever became
of the others."""

import json

import pytest

from mpcompile.errors import DeviceLost, TargetError
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.remote.build_ahead import map_built
from mpcompile.remote.pool import DevicePool
from tests.latency.networks import branching
from tests.latency.simulated import REFERENCE, Simulated
from tests.patience import until
from tests.remote.simulated import Formula, Shelf

QUICK = {"recheck": 0.05, "poll": 0.02}
W, A = [1, 2, 4], [1, 2, 8]


class Board(Formula):
    """With the simulated workbench's reference; `dies` is asked about a layer's subgraph."""

    def reference(self):
        return REFERENCE * self.factor()


class OnPool(Simulated):
    """Simulated, on the devices of a pool."""

    def __init__(self, pool: DevicePool):
        super().__init__()
        self.pool, self.slower = pool, pool.slower

    @property
    def devices_at_once(self):
        return self.pool.devices_at_once

    def known(self, reference):
        return self.pool.known(reference)

    def time(self, batches, done):
        def work(device, at, built):
            assert built == 2 * at
            for kernel in batches[at]:
                device.took.append(kernel.subgraph.layer)
                if device.dies(kernel.subgraph):
                    raise DeviceLost(f"{device.name} was lost")
            return self.measure(batches[at], device.factor())

        map_built(self.pool, lambda at: 2 * at, work, range(len(batches)), done)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(branching(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture(scope="module")
def table(model, tmp_path_factory):
    """On this one process, as it was before there were pools."""
    return build_table(
        model, BitCandidates.of(W, A), Simulated(), Cache(tmp_path_factory.mktemp("cache") / "cells")
    ).to_json()


def built(model, cells, pool):
    return build_table(model, BitCandidates.of(W, A), OnPool(pool), Cache(cells)).to_json()


def test_two_devices_build_what_one_builds(model, table, tmp_path):
    devices = [Board("a"), Board("b")]
    with DevicePool(devices, **QUICK) as pool:
        assert built(model, tmp_path / "cells", pool) == table
    assert all(d.took for d in devices)
    with DevicePool([Board("a")], **QUICK) as pool:
        assert built(model, tmp_path / "one", pool) == table
    rows = [[json.loads(line) for line in (tmp_path / f).read_text().splitlines()] for f in ("cells", "one")]
    by_key = [{r["key"]: r for r in some} for some in rows]
    assert by_key[0] == by_key[1] and len(rows[0]) == len(by_key[0])


def test_a_device_that_is_ten_times_slower_leaves_no_trace(model, table, tmp_path):
    lines = []
    with DevicePool([Board("slow", 10.0), Board("a")], warn=lines.append, **QUICK) as pool:
        assert built(model, tmp_path / "cells", pool) == table
    assert [line for line in lines if line.startswith("slow is 10.0 times slower")] == lines != []
    assert {json.loads(line)["reference"] for line in (tmp_path / "cells").read_text().splitlines()} == {REFERENCE}


def test_what_was_measured_while_all_devices_were_slow_is_measured_again_when_that_shows(model, table, tmp_path):
    """A faster one joins when most of the table is done."""
    slow, fast = Board("slow", 10.0), Board("fast")
    shelf, cells = Shelf(slow), tmp_path / "cells"

    def joins(subgraph):
        if len(slow.took) == 60:
            shelf.put(fast)
            until(lambda: pool.best == REFERENCE)
        return False

    slow.dies = joins
    with DevicePool(source=shelf, **QUICK) as pool:
        assert built(model, cells, pool) == table
    rows = [json.loads(line) for line in cells.read_text().splitlines()]
    assert {r["reference"] for r in rows} == {10 * REFERENCE, REFERENCE}


def test_what_an_earlier_run_measured_on_a_slow_device_is_not_trusted(model, table, tmp_path):
    cells = tmp_path / "cells"
    with DevicePool([Board("a", 10.0)], **QUICK) as pool:
        assert built(model, cells, pool) != table
    with DevicePool([Board("a")], **QUICK) as pool:
        assert built(model, cells, pool) == table
    with DevicePool([Board("a", 10.0)], **QUICK) as pool:
        assert built(model, cells, pool) == table  # nothing is left to be measured
    more = [*A, 3]
    with (
        DevicePool([Board("a", 10.0)], patience=0.3, **QUICK) as pool,
        pytest.raises(TargetError, match="a stays 10.0 times slower"),
    ):
        build_table(model, BitCandidates.of(W, more), OnPool(pool), Cache(cells))


def test_a_device_that_dies_in_the_middle_changes_nothing(model, table, tmp_path):
    again = Board("a")
    first = Board("a", dies=lambda subgraph: len(first.took) == 30 and (shelf.put(again) or True))
    other = Board("b", dies=lambda subgraph: len(other.took) == 22 and not until(lambda: pool.tallies["a"].lost))
    shelf = Shelf(first, other)  # b has one batch of 21, a dies in its second
    with DevicePool(source=shelf, **QUICK) as pool:
        assert built(model, tmp_path / "cells", pool) == table
    assert pool.tallies["a"].lost == 1


def test_a_kernel_that_devices_die_by_is_named_and_all_others_are_kept(model, tmp_path):
    def dies(subgraph):
        return subgraph.layer == "c2" and shelf.put(Board("again", dies=dies)) is None

    shelf = Shelf(Board("a", dies=dies), Board("b", dies=dies))
    with DevicePool(source=shelf, **QUICK) as pool:
        with pytest.raises(TargetError, match="layer c2.*devices are lost by it"):
            built(model, tmp_path / "cells", pool)
    rows = [json.loads(line) for line in (tmp_path / "cells").read_text().splitlines()]
    assert rows and "c2" not in {r["layer"] for r in rows}
