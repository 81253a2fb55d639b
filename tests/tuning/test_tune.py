"""Tuning: what is measured, what is kept, and what it takes to replace a default. Machines are simulated here but for
the last test, which measures."""

import json
import math
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from benchmarks.networks import Bits, ConvShape, conv_layer
from mpcompile.api.tune import tune
from mpcompile.errors import DeviceLost, MissingDependency, UsageError
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.locks import exclusive_folder
from mpcompile.remote.pool import DevicePool
from mpcompile.runtime.device import About
from mpcompile.schedules.tile import Tile
from mpcompile.targets import load_target
from mpcompile.tuning.runner import PoolRunner
from mpcompile.tuning.task import tasks_of
from mpcompile.tuning.trials import BATCH, Trials
from mpcompile.tuning.tune import Tuner

TARGET = load_target("x86-64-v4-vnni-vpopcntdq")
TRIALS, RECORDS = f"{TARGET.name}.trials.jsonl", f"{TARGET.name}.json"


class Machine:
    """A device and builder whose kernels take what `cost` says of their tile, on a clock that may drift. `crash`: which
    tiles end it."""

    name = "simulated"
    about = replace(About.here(), cpu="simulated", l2=0)

    def __init__(self, cost, spread: float = 0.001, stop_after: int | None = None, crash=lambda tile: False):
        self.cost, self.spread, self.stop_after, self.crash = cost, spread, stop_after, crash
        self.measured: list[Tile] = []
        self.drift, self.crashes = 1.0, 0

    def build(self, kernels):
        return [
            RuntimeError("no such register") if k.tile["pixels"] == 2 else json.dumps({**k.tile, "lines": 1}).encode()
            for k in kernels
        ]

    def reference(self):
        return 1e-5

    def close(self):
        pass

    def time_kernels(self, kernels, threads, *, stirred, rounds, min_time, progress=None):
        if self.stop_after is not None and len(self.measured) >= self.stop_after:
            raise KeyboardInterrupt
        self.threads = threads
        self.drift *= 1.1  # a machine that gets slower and slower
        found = {}
        for name, kernel in kernels.items():
            tile = Tile.from_json(json.loads(kernel.library))
            if self.crash(tile):
                self.crashes += 1
                raise DeviceLost(f"{self.name} crashed", "crash")
            self.measured.append(tile)
            seconds = 1e-4 * self.cost(tile) * self.drift
            found[name] = Timing(name, seconds, seconds * (1 - self.spread), seconds * (1 + self.spread), rounds)
        return Measurement(found, 1e-5, 1e-5, rounds, 0.05)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The 3×3 convolution of a small network."""
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    conv_layer(ConvShape(32, 8, 128), Bits(1, 1)).save(path)
    return next(t for t in tasks_of(mp.load(path), TARGET, 1) if "conv" in t.layers)


def bowl(tile: Tile) -> float:
    """Best at 4 pixels, one vector block and unrolled once; lines make no difference, as in the built code."""
    return 1 + abs(math.log2(tile.pixels / 4)) + abs(math.log2(tile.block / 32)) + abs(tile.unroll - 1) / 4


def tuner(folder, machine, trials):
    return Tuner(TARGET, folder, PoolRunner(DevicePool([machine]), 1, elsewhere=False), machine, trials)


def test_the_search_finds_the_best_and_measures_nothing_twice(task, tmp_path):
    machine = Machine(bowl)
    work = tuner(tmp_path, machine, 64)
    record = work.run([task]).records[0][1]
    best = min(map(bowl, (t for t in task.space.tiles() if t.pixels != 2)))
    assert bowl(Tile.from_json(record.tile)) <= 1.3 * best
    trials = [t for t in machine.measured if t != task.default_tile]
    searched = trials[:-3]  # the last are the confirmation
    codes = [json.dumps({**t.to_json(), "lines": 1}) for t in searched]
    rows = [json.loads(line) for line in (tmp_path / TRIALS).read_text().splitlines()]
    assert len(set(codes)) == len(codes) < len({json.dumps(r["tile"]) for r in rows if r["why"] is None})
    assert len(rows) == len({json.dumps(r["tile"]) for r in rows}) == 64 and record.trials == 64
    assert next(r["tile"] for r in rows if r["why"] is None) == task.default_tile.to_json()
    failed = [r for r in rows if r["cost"] is None]
    assert failed and all(r["tile"]["pixels"] == 2 and r["why"] == "does not build: no such register" for r in failed)


def test_costs_are_free_of_drift(task, tmp_path):
    machine = Machine(lambda tile: 1.0)  # all equal, on a clock that runs away
    record = tuner(tmp_path, machine, 48).run([task]).records[0][1]
    assert not record.tuned and record.gain == 1
    costs = [json.loads(line)["cost"] for line in (tmp_path / TRIALS).read_text().splitlines()]
    assert all(c is None or abs(c - 1) < 1e-9 for c in costs)


def test_a_win_within_the_spread_keeps_the_default(task, tmp_path):
    cost = lambda tile: 1.0 if tile == task.default_tile else 0.97
    for spread, tuned in ((0.05, False), (0.001, True)):
        folder = tmp_path / str(spread)
        folder.mkdir()
        assert tuner(folder, Machine(cost, spread), 24).run([task]).records[0][1].tuned is tuned


def test_a_win_of_less_than_a_hundredth_keeps_the_default(task, tmp_path):
    cost = lambda tile: 1.0 if tile == task.default_tile else 0.995
    assert not tuner(tmp_path, Machine(cost, 0.0001), 24).run([task]).records[0][1].tuned


def test_what_was_measured_before_a_stop_is_kept_and_not_measured_again(task, tmp_path):
    stopped = Machine(bowl, stop_after=2 * BATCH)
    with pytest.raises(KeyboardInterrupt):
        tuner(tmp_path, stopped, 64).run([task])
    kept = [json.loads(line) for line in (tmp_path / TRIALS).read_text().splitlines()]
    assert len(kept) > BATCH and not (tmp_path / RECORDS).exists()
    with open(tmp_path / TRIALS, "a") as file:
        file.write('{"key": "cut sho')  # as if the machine had lost power
    again = Machine(bowl)
    found = tuner(tmp_path, again, 64).run([task])
    assert (found.new, found.known) == (64 - len(kept), len(kept))
    before = {json.dumps(k["tile"]) for k in kept} - {json.dumps(task.default_tile.to_json())}
    assert not before & {json.dumps(t.to_json()) for t in again.measured[:-4]}
    third = Machine(bowl)
    assert tuner(tmp_path, third, 64).run([task]).new == 0 and third.measured == []


class Shop:
    """A source that gives its one device, and again when it was lost."""

    name = "the shop"

    def __init__(self, device):
        self.device, self.given = device, -1

    def take(self):
        if self.given == self.device.crashes:
            return None
        self.given = self.device.crashes
        return self.device


TRIAL_DAMAGE = {
    **{
        f"lacks {name}": lambda row, name=name: {k: v for k, v in row.items() if k != name}
        for name in ("key", "task", "title", "tile", "code", "cost", "why", "seconds", "default_seconds")
    },
    **{
        f"{name} is {value}": lambda row, name=name, value=value: row | {name: value}
        for name in ("cost", "seconds", "default_seconds")
        for value in (float("nan"), float("inf"), 0.0, "1.5", True, [1.0])
    },
    **{
        f"{name} times {factor:g}": lambda row, name=name, factor=factor: row | {name: factor * row[name]}
        for name in ("cost", "seconds", "default_seconds")
        for factor in (-1, 1000, 0.001)
    },
    "seconds are null": lambda row: row | {"seconds": None},
    "a failure with a cost": lambda row: row | {"why": "it crashed", "seconds": None, "default_seconds": None},
    "a tile of text": lambda row: row | {"tile": {**row["tile"], "row": "1"}},
    "a tile of another version": lambda row: row | {"tile": {**row["tile"], "warps": 4}},
    "no tile": lambda row: row | {"tile": 3},
    "no object": lambda row: [row["key"]],
}


@pytest.mark.parametrize("what", TRIAL_DAMAGE)
def test_a_damaged_trial_is_none_and_the_others_stay(task, tmp_path, what):
    work = tuner(tmp_path, Machine(bowl), 16)
    work.run([task])
    path = tmp_path / TRIALS
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    at = next(i for i, row in enumerate(rows) if row["seconds"] and row["cost"] != 1)
    damaged = [*rows[:at], TRIAL_DAMAGE[what](rows[at]), *rows[at + 1 :]]
    path.write_text("".join(json.dumps(row) + "\n" for row in damaged))
    again = tuner(tmp_path, Machine(bowl), 16)
    known = Trials(task, again.builder, again.log, again.identity)
    whole = Trials(task, work.builder, work.log, work.identity)
    lost = Tile.from_json(rows[at]["tile"])
    assert known.costs == {tile: cost for tile, cost in whole.costs.items() if tile != lost}
    assert known.failures == whole.failures and len(known.costs) == len(rows) - 1


def test_a_crash_costs_its_trial_and_is_not_tried_again(task, tmp_path):
    crash = lambda tile: tile.pixels == 1 and tile.unroll == 3 and tile != task.default_tile
    machine = Machine(bowl, crash=crash)
    with DevicePool(source=Shop(machine), poll=0.001) as pool:
        found = Tuner(TARGET, tmp_path, PoolRunner(pool, 1, elsewhere=True), machine, 32).run([task])
    rows = [json.loads(line) for line in (tmp_path / TRIALS).read_text().splitlines()]
    crashed = [r for r in rows if crash(Tile.from_json(r["tile"])) and r["tile"]["pixels"] != 2]
    assert crashed and all(r["cost"] is None and "simulated crashed" in r["why"] for r in crashed)
    assert found.failures[task.title] and len({r["key"] for r in rows}) == 32 and found.records[0][1].tuned
    again = Machine(bowl, crash=lambda tile: True)
    assert tuner(tmp_path, again, 32).run([task]).new == 0


def test_layers_take_turns_where_devices_are_elsewhere(tmp_path):
    model = tmp_path / "m.onnx"
    conv_layer(ConvShape(32, 8, 128), Bits(1, 1)).save(model)
    tasks = tasks_of(mp.load(model), TARGET, 1)
    machine, other = Machine(bowl), Machine(bowl)
    with DevicePool([machine, other]) as pool:
        found = Tuner(TARGET, tmp_path, PoolRunner(pool, 1, elsewhere=True), machine, 48).run(tasks)
    titles = [json.loads(line)["title"] for line in (tmp_path / TRIALS).read_text().splitlines()]
    runs = [title for title, _ in groupby(titles)]
    assert len(runs) > len(set(runs)) > 1  # a layer goes on after another had its turn
    assert machine.measured and other.measured
    assert [names for names, _ in found.records] == [t.layers for t in tasks] and found.new == len(titles)


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    with exclusive_folder(tmp_path), pytest.raises(UsageError, match="this process writes to"):
        with exclusive_folder(tmp_path):
            pass


@pytest.mark.parametrize("threads", [-1, 0, 1 << 20])
def test_threads_that_no_machine_has_leave_no_folder(tmp_path, threads):
    model = Path(__file__).parents[1] / "data" / "brevitas_mlp_w3a3.onnx"
    with pytest.raises(UsageError, match=f"{threads}"):
        tune(model, "native", tmp_path / "new" / "records", threads=threads)
    (tmp_path / "records").mkdir()
    with pytest.raises(UsageError, match=f"{threads}"):
        tune(model, "native", tmp_path / "records", threads=threads)
    assert [p.name for p in tmp_path.iterdir()] == ["records"]


def test_without_xgboost_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("mpcompile.api.tune.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r'needs xgboost: pip install "mpcompile\[tune\]"'):
        tune("no such model", "native", tmp_path / "records")
    assert not list(tmp_path.iterdir())


def test_on_two_threads_what_is_slower_on_one_is_not_recorded(task, tmp_path):
    better = replace(task.default_tile, unroll=1)
    other = replace(task.default_tile, unroll=2)
    for harm, recorded in ((2.0, other), (1.0, better)):
        folder = tmp_path / str(harm)
        folder.mkdir()
        machine = Machine(None)
        machine.cost = lambda tile: {better: 0.5 if machine.threads == 2 else harm, other: 0.8}.get(tile, 1.0)
        tune = Tuner(TARGET, folder, PoolRunner(DevicePool([machine]), 2, elsewhere=False), machine, 4)
        tune.trials, tune.compiled = 4, lambda spec, architecture: (task.default_tile, {})
        work = Trials(task, machine, tune.log, tune.identity)
        work.costs = {task.default_tile: 1.0, better: 0.5, other: 0.8}
        confirm, found = work.confirm(2), None
        try:
            while True:
                found = tune.measure(work, confirm.send(found), lambda: None)
        except StopIteration as end:
            assert end.value[0] == recorded


def test_tuned_for_real_and_compiled_with_it(tmp_path):
    model = tmp_path / "m.onnx"
    conv_layer(ConvShape(64, 8, 64), Bits(1, 2)).save(model)
    heard = []
    found = tune(model, "x86-64-v3", tmp_path / "records", trials=3, progress=lambda *at: heard.append(at))
    assert heard[-1][0] == heard[-1][1] == found.new == sum(r.trials for _, r in found.records)
    assert all(r.cpu and r.seconds > 0 for _, r in found.records)
    text = (tmp_path / "records" / "x86-64-v3.json").read_text()
    data = json.loads(text)
    conv = next(r for r in data["records"] if r["key"]["parts"] and r["key"]["out"] == [64, 8, 8])
    conv["tile"] = {**conv["tile"], "lines": 2, "unroll": 1}  # whatever won: a point that is not the default
    (tmp_path / "records" / "x86-64-v3.json").write_text(json.dumps(data))
    x = np.random.default_rng(0).standard_normal((64, 8, 8), np.float32)
    results = []
    for records in (tmp_path / "records", "none"):
        path = mp.compile(model, "x86-64-v3", tmp_path / "m.mpc", records=records)
        with mp.open_bundle(path, threads=1) as bundle:
            row = next(r for r in bundle.layers if r["name"] == "conv")
            results.append(bundle.run(x))
        if records == "none":
            assert row["tile_source"] == {"from": "default"}
        else:
            assert row["tile_source"]["from"] == "record" and row["tile"]["lines"] == 2
            assert row["tile_source"]["cpu"] == conv["cpu"]
    assert results[0].tobytes() == results[1].tobytes()
