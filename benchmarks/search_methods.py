"""Every search method against uniform bits at equal latency, on digits in clutter, every network trained until it stands
still.

    python -m benchmarks.search_methods -o DIR [--seeds 3] [--boards rpi4b native] [--methods ebs ilp …] [--size narrow]

For each seed one float network, from which every other is trained by one recipe (mpcompile.search.still), so that they
differ in their bits alone; networks of the same bits are trained once. A board's latency table is its cost model's, which
the result says; `native` is this machine, measured, for which it has to be quiet. Budgets are what uniform W1A2 and W2A2
cost by the table, and half way between. Which method is best at a budget is told by held-out images, its accuracy by the
test images.

Every network and search is a line of DIR/networks.jsonl, and what is there is not done again. The tables are in
DIR/methods.md and methods.json, and the plots in DIR/methods-BOARD.svg, of what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from msgspec.structs import replace

from benchmarks.search_plot import Dot, svg
from mpcompile.api.modelled_workbench import modelled_table
from mpcompile.api.search import device_of
from mpcompile.errors import MpError, UsageError
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.latency.table import LatencyTable
from mpcompile.remote.pool import DevicePool
from mpcompile.search import checkpoint, config, data
from mpcompile.search.export import export
from mpcompile.search.folder import Folder, key_of
from mpcompile.search.layers import BitAssignment
from mpcompile.search.loop import Recipe, SearchRecipe, accuracy
from mpcompile.search.methods import METHODS, Query
from mpcompile.search.models import ResNet
from mpcompile.search.objective import BudgetPrice, Latency, land
from mpcompile.search.still import Still, train
from mpcompile.targets import load_target

NATIVE = "native"
UNIFORM = "w1a2", "w2a2", "w8a8"
BUDGETS = "w2a2", "between", "w1a2"
"""Loosest first: a search begins where the one before ended."""


@dataclass(frozen=True)
class Sizes:
    """`epochs`: of the first training, the next has twice as many. `still`, `most`: see mpcompile.search.still."""

    side: int = 12
    widths: tuple[int, ...] = (16, 32)
    blocks: tuple[int, ...] = (1, 1)
    stem_stride: int = 2
    shift: int = 1
    train: int = 1500
    test: int = 1440
    bits: tuple[int, ...] = (1, 2, 3, 4, 8)
    batch: int = 64
    epochs: float = 6
    rate: float = 1e-2
    still: float = 0.03
    most: int = 2
    search_epochs: float = 8
    search_rate: float = 3e-3
    judged: int = 512
    population: int = 16
    generations: int = 5


SIZES = {
    "narrow": Sizes(),
    "wide": Sizes(widths=(32, 64)),
    "quick": Sizes(side=8, widths=(8, 16), train=300, test=200, epochs=1, most=2, search_epochs=1),
}
"""narrow is so small that a layer takes next to no time on a large CPU; wide has twice its
widths. quick is as small as it goes: it tries the command and says nothing."""


class Study:
    """One folder of networks."""

    def __init__(self, out: Path, sizes: Sizes, options: config.SearchOptions = config.SearchOptions()):
        self.out, self.sizes = Folder(out), sizes
        self.options = replace(
            options,
            weights=list(sizes.bits),
            activations=list(sizes.bits),
            ebs=replace(options.ebs, strength_rate=0.06),
            ilp=replace(options.ilp, samples=sizes.judged),
            greedy=replace(options.greedy, samples=sizes.judged),
            supernet=replace(
                options.supernet, samples=sizes.judged, population=sizes.population, generations=sizes.generations
            ),
        )
        self.data = data.load(None, side=sizes.side, train=sizes.train, test=sizes.test)
        about = json.loads(json.dumps({"sizes": asdict(sizes), "data": self.data.fingerprint}))
        found = self.out.read("study.json")
        if found is not None and found != about:
            raise UsageError(f"{out} holds another study: choose another folder")
        self.out.write("study.json", about)
        self.lines = out / "networks.jsonl"
        self.known: dict[str, dict] = {}
        for line in self.lines.read_text().splitlines() if self.lines.exists() else []:
            row = json.loads(line)
            self.known[row["key"]] = row

    def once(self, work, **what) -> dict:
        """A line of the file; `work` makes what is not there yet."""
        key = key_of(what)
        if key not in self.known:
            row = {"key": key, **what, **work()}
            with open(self.lines, "a") as file:
                file.write(json.dumps(row) + "\n")
            self.known[key] = row
        return self.known[key]

    # -- networks ----------------------------------------------------------------------------------
    def network(self, seed: int, state: dict | None = None) -> ResNet:
        s = self.sizes
        torch.manual_seed(seed)
        made = ResNet(
            s.widths, s.blocks, channels=1, side=s.side, classes=10, stem_stride=s.stem_stride,
            weights=s.bits, activations=s.bits,
        )  # fmt: skip
        if state:
            made.load_state_dict(state)
        made.start_clips(self.data.train.pixels[:256].float() / 255)
        return made

    @cache  # noqa: B019  # a study lasts as long as the program
    def table(self, board: str) -> LatencyTable:
        path = self.out.path / f"{board}.json"
        if not path.exists():
            network, model = self.network(0), self.out.path / f"{board}.onnx"
            network.assign(network.uniform(2, 2))
            export(network, model)
            bits = BitCandidates.of(self.sizes.bits, self.sizes.bits)
            if board == NATIVE:
                device = device_of(config.Config(measure=config.MeasureOptions(threads=1)), DevicePool.local())
                device.table(model, bits, path.with_suffix(".cells"), lambda done, total: None).save(path)
            else:
                modelled_table(model, load_target(board), bits).save(path)
        return LatencyTable.load(path)

    def trained(self, seed: int, bits: BitAssignment | None, start: dict | None) -> tuple[dict, ResNet]:
        s, network = self.sizes, self.network(seed, start)
        recipe = Recipe(s.epochs, s.batch, s.rate, shift=s.shift)
        figures = train(network, bits, self.data.train, recipe, Still(s.still, s.most), seed=seed)
        network.eval()
        return {**figures, "accuracy": accuracy(network, self.data.test)}, network

    def float(self, seed: int) -> dict:
        """The state of a seed's float network."""
        path = self.out.path / f"float-{seed}.npz"
        if (state := checkpoint.load(path)) is None:
            figures, network = self.trained(seed, None, None)
            self.once(lambda: figures, kind="float", seed=seed)
            checkpoint.save(path, dict(network.state_dict()))
            state = dict(network.state_dict())
        return state

    def quantized(self, seed: int, bits: BitAssignment) -> dict:
        return self.once(
            lambda: self.trained(seed, bits, self.float(seed))[0], kind="network", seed=seed, bits=bits.to_json()
        )

    # -- methods -----------------------------------------------------------------------------------
    def targets(self, cost: Latency, network: ResNet) -> dict[str, float]:
        low, high = (cost.of(network.uniform(*BitPair.parse(bits))) for bits in ("w1a2", "w2a2"))
        return {"w1a2": low, "between": (low + high) / 2, "w2a2": high}

    def searched(self, seed: int, board: str, name: str) -> dict[str, dict]:
        """Budget → its target, the bits of the method, and what they cost. One line, as each search goes on from the one
        before."""

        def work() -> dict:
            s, start, before = self.sizes, self.float(seed), None
            made: dict[str, dict] = {}
            for budget in BUDGETS:
                network = self.network(seed, start)
                cost = Latency(network, self.table(board))
                target = self.targets(cost, network)[budget]
                epochs = s.search_epochs * (len(BUDGETS) if name == "supernet" else 1)
                recipe = SearchRecipe(epochs, s.batch, s.search_rate, shift=s.shift, warmup=0 if before else 0.5)
                query = Query(network, cost, BudgetPrice(target), self.data.train, recipe, seed, before=before)
                found = METHODS[name].configured(network, self.options).search(query)
                before, bits = found.state or None, found.assignment
                if found.scores is not None:
                    bits = land(bits, found.scores, cost, target)
                figures = {"target": target, "argmax": cost.of(found.assignment), "cost": cost.of(bits)}
                made[budget] = {**figures, "bits": bits.to_json()}
            return {"budgets": made}

        return self.once(work, kind="search", seed=seed, board=board, method=name)["budgets"]

    def run(self, seeds: int, boards: list[str], methods: list[str]) -> None:
        for seed in range(seeds):
            for bits in UNIFORM:
                self.quantized(seed, self.network(seed).uniform(*BitPair.parse(bits)))
                self.say(f"seed {seed}, uniform {bits}")
            for board in boards:
                for name in methods:
                    for budget, found in self.searched(seed, board, name).items():
                        row = self.quantized(seed, BitAssignment.from_json(found["bits"]))
                        self.say(f"seed {seed}, {board}, {name} at {budget}: {100 * row['accuracy']:.1f} %")
                self.report()

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    # -- tables ------------------------------------------------------------------------------------
    def rows(self) -> list[dict]:
        """Of every search whose network is trained: seed, board, method, budget, accuracy, held-out loss, gain over the
        uniform network of that cost; half way between two of them over their mean."""
        found = []
        nets = {(r["seed"], key_of(r["bits"])): r for r in self.known.values() if r["kind"] == "network"}
        for row in self.known.values():
            for budget, chosen in row["budgets"].items() if row["kind"] == "search" else ():
                net = nets.get((row["seed"], key_of(chosen["bits"])))
                if net is None:
                    continue
                low, high = (nets[row["seed"], key_of(self.uniform(b))]["accuracy"] for b in ("w1a2", "w2a2"))
                same = {"w1a2": low, "between": (low + high) / 2, "w2a2": high}[budget]
                what = {name: row[name] for name in ("seed", "board", "method")}
                figures = {name: chosen[name] for name in ("target", "argmax", "cost")}
                learned = {"accuracy": net["accuracy"], "held out loss": net["held out loss"]}
                found.append({**what, "budget": budget, **figures, **learned, "gain": net["accuracy"] - same})
        return found

    def report(self) -> str:
        rows = self.rows()
        text: list[str] = []
        for board in dict.fromkeys(r["board"] for r in rows):
            of_board = [r for r in rows if r["board"] == board]
            text += self._table(of_board, board)
            (self.out.path / f"methods-{board}.svg").write_text(self._plot(of_board, board), encoding="utf-8")
        nets = [r for r in self.known.values() if r["kind"] == "network"]
        same = {b: [r["accuracy"] for r in nets if r["bits"] == self.uniform(b)] for b in UNIFORM}
        floats = [r["accuracy"] for r in self.known.values() if r["kind"] == "float"]
        told = ", ".join(f"{b.upper()} {_mean(found)}" for b, found in same.items())
        text.append(f"Uniform networks: {told}; float {_mean(floats)}.")
        markdown = "\n".join(text) + "\n"
        (self.out.path / "methods.md").write_text(markdown, encoding="utf-8")
        self.out.publish("methods.json", {"sizes": asdict(self.sizes), "rows": rows})
        return markdown

    def _table(self, rows: list[dict], board: str) -> list[str]:
        how = "measured" if board == NATIVE else "by its cost model"
        seeds = sorted({r["seed"] for r in rows})
        by_budget = {b: [r for r in rows if r["budget"] == b] for b in BUDGETS}
        head = [f"{b}, {1e6 * found[0]['target']:.1f} µs" for b, found in by_budget.items()]
        lines = [f"{board}, {how}; seeds {', '.join(map(str, seeds))}:", ""]
        lines += ["| method | " + " | ".join(head) + " |", "|---" * (1 + len(head)) + "|"]
        for name in dict.fromkeys(r["method"] for r in rows):
            cells = [_cell([r for r in found if r["method"] == name]) for found in by_budget.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        best = [
            [min((r for r in found if r["seed"] == seed), key=lambda r: r["held out loss"]) for seed in seeds]
            for found in by_budget.values()
        ]
        return [*lines, "| least held-out loss | " + " | ".join(map(_cell, best)) + " |", ""]

    def _plot(self, rows: list[dict], board: str) -> str:
        cost = Latency(self.network(0), self.table(board))
        nets = [r for r in self.known.values() if r["kind"] == "network"]
        uniform = {}
        for bits in UNIFORM:
            same, x = self.uniform(bits), 1e6 * cost.of(self.network(0).uniform(*BitPair.parse(bits)))
            uniform[bits.upper()] = _dot(x, [r["accuracy"] for r in nets if r["bits"] == same])
        methods = {
            name: [
                _dot(1e6 * statistics.mean(r["cost"] for r in found), [r["accuracy"] for r in found])
                for b in reversed(BUDGETS)
                if (found := [r for r in rows if r["method"] == name and r["budget"] == b])
            ]
            for name in dict.fromkeys(r["method"] for r in rows)
        }
        return svg(f"Methods at equal latency, {board}", uniform, methods)

    def uniform(self, bits: str) -> dict:
        """As the file has it."""
        return json.loads(json.dumps(self.network(0).uniform(*BitPair.parse(bits)).to_json()))


def _cell(rows: list[dict]) -> str:
    """Accuracy and the gain over the same seed's uniform network of that cost, with their deviations over seeds."""
    if not rows:
        return "—"
    gains = [100 * r["gain"] for r in rows]
    spread = f" ± {statistics.stdev(gains):.1f}" if len(gains) > 1 else ", one seed"
    return f"{_mean([r['accuracy'] for r in rows])} ({statistics.mean(gains):+.1f}{spread})"


def _dot(x: float, accuracies: list[float]) -> Dot:
    off = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return Dot(x, 100 * statistics.mean(accuracies), 100 * off)


def _mean(found: list[float]) -> str:
    if not found:
        return "—"
    spread = f" ± {100 * statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{100 * statistics.mean(found):.1f}{spread}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="the folder of the networks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--boards", nargs="+", default=["rpi4b"], help="boards, or native for this machine")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--size", default="narrow", choices=list(SIZES))
    asked = parser.parse_args(argv)
    try:
        study = Study(asked.out, SIZES[asked.size])
        study.run(asked.seeds, asked.boards, asked.methods)
        print(study.report())
    except MpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
