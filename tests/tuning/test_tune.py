"""Tuning: what is measured, what is kept, and what it takes to replace a default. Machines are simulated here but for the
last test, which measures."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import mpcompile as mp
from benchmarks.networks import Bits, ConvShape, conv_layer
from mpcompile.errors import DeviceLost
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.remote.pool import Pool
from mpcompile.runtime.device import About
from mpcompile.schedules.tile import Tile
from mpcompile.targets import load_target
from mpcompile.tuning.runner import PoolRunner
from mpcompile.tuning.task import tasks_of
from mpcompile.tuning.trials import BATCH
from mpcompile.tuning.tune import Tuner, tune

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
        self.drift = 1.0

    def build(self, kernels):
        return [RuntimeError("no such register") if k.tile["pixels"] == 2 else
                json.dumps({**k.tile, "words_first": False}).encode() for k in kernels]

    def reference(self):
        return 1e-5

    def close(self):
        pass

    def time_kernels(self, kernels, threads, *, stirred, rounds, min_time, progress=None):
        if self.stop_after is not None and len(self.measured) >= self.stop_after:
            raise KeyboardInterrupt
        self.drift *= 1.1                                           # a machine that gets slower and slower
        found = {}
        for name, kernel in kernels.items():
            tile = Tile.from_json(json.loads(kernel.library))
            if self.crash(tile):
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
    """Best at 4 pixels, one vector block and unrolled once; words_first makes no difference, as in the built code."""
    return 1 + abs(math.log2(tile.pixels / 4)) + abs(math.log2(tile.block / 32)) + abs(tile.unroll - 1) / 4


def tuner(folder, machine, trials):
    return Tuner(TARGET, folder, PoolRunner(Pool([machine]), 1, elsewhere=False), machine, trials)


def test_the_search_finds_the_best_and_measures_nothing_twice(task, tmp_path):
    machine = Machine(bowl)
    work = tuner(tmp_path, machine, 64)
    record = work.run([task]).records[0][1]
    best = min(map(bowl, (t for t in task.space.tiles() if t.pixels != 2)))
    assert bowl(Tile.from_json(record.tile)) <= 1.3 * best
    trials = [t for t in machine.measured if t != task.default_tile]
    searched = trials[:-3]                                          # the last are the confirmation
    codes = [json.dumps({**t.to_json(), "words_first": False}) for t in searched]
    assert len(set(codes)) == len(codes)
    rows = [json.loads(line) for line in (tmp_path / TRIALS).read_text().splitlines()]
    assert len(rows) == len({json.dumps(r["tile"]) for r in rows}) == 64 and record.trials == 64
    assert task.default_tile.to_json() in [r["tile"] for r in rows[:BATCH]]
    failed = [r for r in rows if r["cost"] is None]
    assert failed and all(r["tile"]["pixels"] == 2 and r["why"] == "does not build: no such register" for r in failed)


def test_costs_are_free_of_drift(task, tmp_path):
    machine = Machine(lambda tile: 1.0)                             # all equal, on a clock that runs away
    record = tuner(tmp_path, machine, 48).run([task]).records[0][1]
    assert not record.tuned and record.gain == 1
    costs = [json.loads(l)["cost"] for l in (tmp_path / TRIALS).read_text().splitlines()]
    assert all(c is None or abs(c - 1) < 1e-9 for c in costs)


def test_a_win_within_the_spread_keeps_the_default(task, tmp_path):
    cost = lambda tile: 1.0 if tile == task.default_tile else 0.97
    assert not tuner(tmp_path / "a", Machine(cost, spread=0.05), 24).run([task]).records[0][1].tuned \
        if (tmp_path / "a").mkdir() is None else None
    (tmp_path / "b").mkdir()
    assert tuner(tmp_path / "b", Machine(cost, spread=0.001), 24).run([task]).records[0][1].tuned


def test_what_was_measured_before_a_stop_is_kept_and_not_measured_again(task, tmp_path):
    stopped = Machine(bowl, stop_after=2 * BATCH)
    with pytest.raises(KeyboardInterrupt):
        tuner(tmp_path, stopped, 64).run([task])
    kept = [json.loads(l) for l in (tmp_path / TRIALS).read_text().splitlines()]
    assert len(kept) > BATCH and not (tmp_path / RECORDS).exists()
    with open(tmp_path / TRIALS, "a") as file:
        file.write('{"key": "cut sho')                              # as if the machine had lost power
    again = Machine(bowl)
    found = tuner(tmp_path, again, 64).run([task])
    assert (found.new, found.known) == (64 - len(kept), len(kept))
    before = {json.dumps(k["tile"]) for k in kept} - {json.dumps(task.default_tile.to_json())}
    assert not before & {json.dumps(t.to_json()) for t in again.measured[:-4]}
    third = Machine(bowl)
    assert tuner(tmp_path, third, 64).run([task]).new == 0 and third.measured == []


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
    conv["tile"] = {**conv["tile"], "lines": 2, "unroll": 1}       # whatever won: a point that is not the default
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
