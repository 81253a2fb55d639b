"""A small sweep on a simulated device. As a program: python -m tests.search.simulated_sweep OUT [KILL_AFTER], which
kills itself with SIGKILL at that event of its progress."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from mpcompile.frontend import load
from mpcompile.ir.bits import BitPair
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.search.config import (
    BaselineOptions,
    Config,
    DataOptions,
    NetworkOptions,
    ObjectiveOptions,
    PretrainOptions,
    SearchOptions,
    TrainingOptions,
)
from mpcompile.search.data import DataSet
from mpcompile.search.method_options import EBSOptions
from mpcompile.search.run import Sweep
from tests.latency.simulated import Simulated
from tests.search.nets import images

CONFIG = Config(
    seed=2,
    data=DataOptions(side=8),
    network=NetworkOptions([6, 10], [1, 1]),
    search=SearchOptions(
        method="ebs",
        weights=[1, 2, 8],
        activations=[1, 2, 8],
        epochs=3,
        warmup=1,
        batch=16,
        ebs=EBSOptions(gumbel=True, strength_rate=0.1),
    ),
    objective=ObjectiveOptions(targets=["30 %", "60 %"]),
    pretrain=PretrainOptions(epochs=3, rate=2e-3),
    retrain=TrainingOptions(epochs=2),
    baselines=BaselineOptions([BitPair(1, 1), BitPair(8, 8)], True, True),
)


class SimulatedDevice:
    """A SearchDevice of formula times; networks take 7 % more than the table knows. Every measurement leaves a line in
    `log`."""

    def __init__(self, log: Path | None = None):
        self.log, self.bench = log, Simulated()
        self.identity = self.bench.identity

    def note(self, what: str) -> None:
        if self.log:
            with open(self.log, "a") as file:
                file.write(what + "\n")

    def table(self, model, bits, cache, progress):
        self.note("table")
        return build_table(load(model), bits, self.bench, Cache(cache), progress=progress)

    def compile(self, model, bundle, table):
        self.note(f"compile {model.parent.name}")
        bundle.write_text(json.dumps(1.07 * self.bench.network(load(model))))

    def network_seconds(self, bundle):
        self.note(f"network_seconds {bundle.parent.name}")
        return json.loads(bundle.read_text())

    def outputs(self, file, inputs):
        """The first class, whatever it sees."""
        self.note(f"answers {file.parent.name}")
        (x,) = inputs.values()
        return [np.eye(1, 4, dtype=np.float32).repeat(len(x), 0)]

    def race(self, files, progress):
        """Bundles a twentieth slower than by themselves; the others by their size."""
        self.note(f"race {' '.join(files)}")
        seconds = {
            name: 1.05 * json.loads(file.read_text()) if file.suffix == ".mpc" else 1e-9 * len(file.read_bytes())
            for name, file in files.items()
        }
        progress(1, 1)
        return {
            "timings": {
                n: {"seconds": s, "low": 0.99 * s, "high": 1.02 * s, "samples": 21} for n, s in seconds.items()
            },
            "note": "a formula",
            "threads": 1,
        }

    def verify(self, model, bundle, images):
        self.note(f"verify {model.parent.name}")
        return {"equal": True, "samples": len(images), "summary": "all buffers equal the reference"}

    def profile(self, model, bundle):
        self.note(f"profile {model.parent.name}")
        layers = self.bench.layers(load(model))
        rows = [{"name": n, "op": "Layer", "parts": [], "time": {"seconds": s}} for n, s in layers.items()]
        return {"layers": rows, "whole": {"seconds": sum(layers.values())}, "note": "a formula"}

    def quantize(self, source, target, images):
        self.note("quantize")
        shutil.copyfile(source, target)

    def about(self):
        return {"machine": {"cpu": "a formula", "cores": 1, "threads": 1}, "versions": {"Python": "3"}}


def sweep(out: Path, show=None, config=CONFIG, warn=lambda line: None) -> Sweep:
    """Saves its state at every step."""
    from mpcompile.search import data as module

    data = DataSet("bars", images(64), images(32, seed=8), 4)
    original, module.load = module.load, lambda *_, **__: data
    try:
        out.mkdir(parents=True, exist_ok=True)
        device = SimulatedDevice(out / "device.log")
        return Sweep(config, out, device, show or (lambda *_: None), keep_seconds=0.0, warn=warn)
    finally:
        module.load = original


if __name__ == "__main__":
    left = int(sys.argv[2]) if len(sys.argv) > 2 else 0

    def count(what, done, total, figures):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sweep(Path(sys.argv[1]), count).run()
