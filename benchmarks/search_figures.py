"""What the search is worth: searched against uniform bits at equal latency, latency against BitOps as its objective.

    python -m benchmarks.search_figures --data PATH --seeds 3 -o DIR [--phase table|train|compile|race]

Everything is compared at equal training: for each seed one float network; every quantized one, uniform or searched, is
trained from it by the same recipe, and a search only says with which bits. One latency table serves all seeds.

    table    measures the table, and the uniform networks whole (of untrained weights: time does not depend on values)
    train    trains, searches, exports; several processes may do it at once, each takes what no other is at
    compile  compiles every network and runs the test images through it
    race     times all of them in turn, in one run; networks of the same bits are one subject
    report   writes the tables, into benchmarks/results/search.json and .md

Each phase goes on where it was interrupted; the machine must be quiet for `table` and `race` only. Without --phase all
are done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.search_tables import markdown, summary
from mpcompile.api.search import device_of
from mpcompile.cli import console
from mpcompile.errors import MpError, UsageError
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.latency.table import LatencyTable
from mpcompile.remote.pool import DevicePool
from mpcompile.search import checkpoint, config, data
from mpcompile.search.calibrate import calibrate
from mpcompile.search.export import INPUT, export
from mpcompile.search.folder import Folder
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Recipe, SearchRecipe, accuracy, retrain, search
from mpcompile.search.method_options import EBSOptions
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.models import ResNet
from mpcompile.search.objective import BitOps, BudgetPrice, Cost, Latency, bitops, land

RESULTS = Path(__file__).parent / "results"
PHASES = ("table", "train", "compile", "race", "report")
QUICK = 1000
"""Test images for a first look while training; the figures are of all of them, by the compiled network."""


@dataclass(frozen=True)
class Sizes:
    """Of the study. `between`: how far from one uniform network's latency to the next, for further latency targets;
    `bitops`: budgets as bits·bits of every searched multiply-accumulate."""

    widths: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (1, 1, 1)
    stem_stride: int = 2
    side: int = 20
    train: int = 5000
    test: int = 10000
    bits: tuple[int, ...] = (1, 2, 3, 4, 8)
    uniform: tuple[str, ...] = ("w1a1", "w1a2", "w2a2", "w4a4", "w8a8")
    targets: tuple[str, ...] = ("w1a2", "w2a2", "w8a8")
    between: tuple[tuple[str, str], ...] = (("w1a2", "w2a2"),)
    bitops: tuple[float, ...] = (2, 4, 8)
    batch: int = 64
    float_epochs: float = 4
    epochs: float = 2
    search_epochs: float = 1.25
    warmup: float = 0.25
    float_rate: float = 2e-3
    rate: float = 1e-3
    strength_rate: float = 0.1
    hot: float = 1.0
    cold: float = 0.2


class Study:
    """One folder of networks; `phase` methods may be called again after any interruption."""

    def __init__(self, path: str | None, seeds: int, out: Path, sizes: Sizes = Sizes(), threads: int = 1):
        self.out, self.seeds, self.sizes = Folder(out), seeds, sizes
        self.data = data.load(path, side=sizes.side, train=sizes.train, test=sizes.test)
        measure = config.MeasureOptions(threads=threads)
        self.device = device_of(config.Config(measure=measure), DevicePool.local())
        about = {"sizes": asdict(sizes), "data": self.data.fingerprint}
        found = self.out.read("study.json")
        if found is not None and found != json.loads(json.dumps(about)):
            raise UsageError(f"{out} holds another study: choose another folder")
        self.out.write("study.json", about)

    # -- networks ----------------------------------------------------------------------------------
    def network(self, seed: int, start: dict | None = None) -> Network:
        """Untrained, or with the weights of `start`; its clips from the first images."""
        s = self.sizes
        torch.manual_seed(seed)
        made = ResNet(
            s.widths,
            s.blocks,
            channels=self.data.channels,
            side=s.side,
            classes=self.data.classes,
            stem_stride=s.stem_stride,
            weights=s.bits,
            activations=s.bits,
        )
        if start:
            made.load_state_dict(start)
        made.start_clips(self.data.train.pixels[:256].float() / 255)
        return made

    # -- table -------------------------------------------------------------------------------------
    def table(self, show) -> None:
        network, folder = self.network(0), self.out.path
        network.assign(network.uniform(2, 2))
        export(network, folder / "network.onnx")
        bits = BitCandidates.of(self.sizes.bits, self.sizes.bits)
        cells = folder / "LUT.json.cells"
        found = self.device.table(folder / "network.onnx", bits, cells, lambda n, of: show("table", n, of))
        found.save(folder / "LUT.json")
        files = {}
        for name in self.sizes.uniform:
            network.assign(network.uniform(*BitPair.parse(name)))
            files[name] = self.out.inner("untrained").path / f"{name}.mpc"
            export(network, files[name].with_suffix(".onnx"))
            self.device.compile(files[name].with_suffix(".onnx"), files[name], found)
        timings = self.device.race(files, lambda n, of: show("uniform networks", n, of))["timings"]
        self.out.write("uniform.json", {name: timings[name]["seconds"] for name in files})

    @cached_property
    def measured(self) -> dict[str, float]:
        """Uniform network → seconds, from the table phase."""
        found = self.out.read("uniform.json")
        if found is None:
            raise UsageError(f"{self.out.path} has no latency table yet: --phase table comes first")
        return found

    def latency(self, network: Network) -> Latency:
        table = LatencyTable.load(self.out.path / "LUT.json")
        raw, uniform = Latency(network, table), self.measured
        predicted = [raw.of(network.uniform(*BitPair.parse(name))) for name in uniform]
        return Latency(network, table, calibrate(predicted, list(uniform.values())))

    # -- train -------------------------------------------------------------------------------------
    def jobs(self, network: Network) -> dict[str, tuple[str, float]]:
        """Network name → (uniform, 0), (latency, seconds) or (bitops, BitOps). A search's seconds are what the same
        table says of the uniform network, so that its error is in both."""
        s, macs, latency = self.sizes, BitOps(network).macs, self.latency(network)
        takes = {name: latency.of(network.uniform(*BitPair.parse(name))) for name in s.uniform}
        jobs = dict.fromkeys(s.uniform, ("uniform", 0.0))
        jobs |= {f"latency-{name}": ("latency", takes[name]) for name in s.targets}
        for a, b in s.between:
            jobs[f"latency-{a}-{b}"] = "latency", (takes[a] + takes[b]) / 2
        return jobs | {f"bitops-{share:g}": ("bitops", share * sum(macs.values())) for share in s.bitops}

    def train(self, show) -> None:
        waiting = True
        while waiting:
            waiting = False
            for seed in range(self.seeds):
                for name in ("float", *self.jobs(self.network(seed))):
                    folder = self.out.inner(f"seed{seed}", name)
                    if folder.read("trained.json"):
                        continue
                    try:
                        with folder.locked():
                            if not folder.read("trained.json"):
                                self._train(seed, name, folder, show)
                    except UsageError:  # another process is at it
                        waiting = True
                        if name == "float":
                            break
            if waiting:
                time.sleep(5)

    def _train(self, seed: int, name: str, folder: Folder, show) -> None:
        s, began = self.sizes, time.process_time()
        told = lambda what, done, of, figures: show(f"seed {seed} {name}: {what}", done, of)
        found: dict = {"seed": seed, "name": name}
        if name == "float":
            network, bits = self.network(seed), None
            recipe = Recipe(s.float_epochs, s.batch, s.float_rate)
        else:
            start = checkpoint.load(self.out.path / f"seed{seed}" / "float" / "weights.npz")
            network, recipe = self.network(seed, start), Recipe(s.epochs, s.batch, s.rate)
            kind, target = self.jobs(network)[name]
            if kind == "uniform":
                bits = network.uniform(*BitPair.parse(name))
            else:
                cost = self.latency(network) if kind == "latency" else BitOps(network)
                bits, figures = self._search(network, cost, target, seed, told)
                found |= {"target": target, "search": figures}
                network = self.network(seed, start)
            found |= {"kind": kind, "assignment": bits.to_json(), **self._about(network, bits)}
        found |= retrain(network, bits, self.data.train, recipe, seed=seed, show=told)
        first = data.Images(self.data.test.pixels[:QUICK], self.data.test.labels[:QUICK])
        found |= {"quick_accuracy": accuracy(network.eval(), first), "cpu_seconds": time.process_time() - began}
        export(network, folder.path / "model.onnx")
        checkpoint.save(folder.path / "weights.npz", dict(network.state_dict()))
        folder.write("trained.json", found)
        console.say(f"seed {seed} {name}: {found['quick_accuracy']:.1%}, {found['cpu_seconds']:.0f} s of CPU")

    def _search(self, network: Network, cost: Cost, target: float, seed: int, told) -> tuple[BitAssignment, dict]:
        s = self.sizes
        method = EBS(network, EBSOptions(hot=s.hot, cold=s.cold, strength_rate=s.strength_rate))
        recipe = SearchRecipe(s.search_epochs, s.batch, s.rate, warmup=s.warmup)
        price = BudgetPrice(max(target, cost.narrowest()))
        figures = search(network, method, cost, price, self.data.train, recipe, seed=seed, show=told)
        chosen = method.readout(network)
        landed = land(chosen, method.log_probs(), cost, price.target)
        return landed, {**figures, "argmax": cost.of(chosen), "landed": cost.of(landed)}

    def _about(self, network: Network, bits: BitAssignment) -> dict:
        latency, macs = self.latency(network), BitOps(network).macs
        return {
            "predicted": latency.of(bits),
            "bitops": bitops(macs, {k: v for k, v in latency.bits(bits).items() if k in macs}),
        }

    # -- compile, race -----------------------------------------------------------------------------
    def trained(self) -> list[tuple[Folder, dict]]:
        found = []
        for seed in range(self.seeds):
            for name in self.jobs(self.network(seed)):
                folder = self.out.inner(f"seed{seed}", name)
                if about := folder.read("trained.json"):
                    found.append((folder, about))
        return found

    def compile(self, show) -> None:
        pixels = (self.data.test.pixels.float() / 255).numpy()
        table, all_trained = LatencyTable.load(self.out.path / "LUT.json"), self.trained()
        for i, (folder, _) in enumerate(all_trained):
            show("compile", i, len(all_trained))
            model, bundle = folder.path / "model.onnx", folder.path / "model.mpc"

            def work() -> dict:
                self.device.compile(model, bundle, table)
                (logits,) = self.device.outputs(bundle, {INPUT: pixels})
                return {"accuracy": float((logits.argmax(1) == self.data.test.labels.numpy()).mean())}

            folder.once("compiled.json", json.dumps(dict(self.device.identity)), work, files=("model.mpc",))

    def race(self, show) -> None:
        files: dict[str, Path] = {}
        for folder, about in self.trained():
            files.setdefault(_bits_of(about), folder.path / "model.mpc")
        found = self.device.race(files, lambda n, of: show("race", n, of))
        self.out.write("race.json", found)

    def report(self, show) -> None:
        """Into benchmarks/results, and the folder."""
        race = self.out.read("race.json")
        if race is None:
            raise UsageError(f"{self.out.path} has no race yet: --phase race comes first")
        rows = []
        for folder, about in self.trained():
            right, timing = folder.read("compiled.json"), race["timings"].get(_bits_of(about))
            if right and timing:
                rows.append(about | {"accuracy": right["result"]["accuracy"], "seconds": timing["seconds"]})
        found = summary(rows)
        found |= {
            "sizes": asdict(self.sizes),
            "data": self.data.name,
            "race": race["note"],
            "rows": rows,
            "measured_on": dict(self.device.identity),
        }
        self.out.write("search.json", found)
        for folder in (self.out, Folder(RESULTS)):
            folder.write("search.json", found)
            (folder.path / "search.md").write_text(markdown(found), encoding="utf-8")
        console.say(f"{RESULTS / 'search.md'}: {len(rows)} networks")


def _bits_of(about: dict) -> str:
    return json.dumps(about["assignment"], sort_keys=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_figures", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="what mpcompile search takes as data.path")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--phase", choices=(*PHASES, "all"), default="all")
    parser.add_argument("--threads", type=int, default=1, help="of training; networks are always timed with one")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        study = Study(options.data, options.seeds, options.output)
        for phase in PHASES if options.phase == "all" else (options.phase,):
            with console.steps() as step:
                getattr(study, phase)(lambda what, done, of: step(f"{what}: {done} of {of}"))
    except MpError as error:
        console.complain(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
