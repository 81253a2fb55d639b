"""AVX2 without VNNI: every 3×3 layer of ResNet-18 in each kernel family, the cost model's choices, and the network.

    python -m benchmarks.avx2 [--only layers choices networks] [--folder DIR [--prepare]] [--before DIR]

`layers`: shares of the family's ceiling (benchmarks.roofline), inside the reduction's loop and of the whole layer,
beside a hand-written C loop of the same family (lookup.c). `choices`: which family the cost model picks for each bit pair,
against what was measured. `networks`: ResNet-18 against ONNX Runtime, which uses whatever the CPU has. --before names a
folder that `--prepare` filled with an older version of mpcompile: its bundles are timed in turn with the new ones.
Results are kept part by part in results/avx2.json and written to results/avx2.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import mpcompile as mp
from benchmarks import roofline
from benchmarks.avx2_tables import markdown
from benchmarks.compiled import Bench
from benchmarks.layers import halves
from benchmarks.lookup import Case, build
from benchmarks.networks import RESNET18_LAYERS, Bits, ConvShape, conv_layer, resnet18
from benchmarks.onnxruntime_baseline import baselines
from benchmarks.onnxruntime_baseline import prepare as prepare_baselines
from mpcompile.cli.console import complain
from mpcompile.errors import MpError
from mpcompile.latency.measure import measure
from mpcompile.latency.timer import Timer
from mpcompile.targets import cpu

TARGET = "x86-64-v3"
PARTS = ("layers", "choices", "networks")
LAYERS = {
    Bits(1, 1): ("popcount", "dot", "lookup"),
    Bits(1, 2): ("popcount", "dot", "lookup"),
    Bits(2, 2): ("popcount", "dot", "lookup"),
    Bits(8, 8): ("dot", "winograd"),
}
CHOICES = [Bits(w, a) for w in (1, 2, 3, 4) for a in (1, 2, 4, 8)] + [Bits(3, 3), Bits(8, 8)]
CHOICE_SHAPES = (RESNET18_LAYERS[2], RESNET18_LAYERS[4])
FAMILIES = ("popcount", "dot", "lookup", "winograd")
NETWORKS = (Bits(1, 1), Bits(1, 2), Bits(2, 2), Bits(8, 8))
IN_C = {"popcount": "popcount", "lookup": "lookup", "dot": "dot in 16 bits", "winograd": "dot in 16 bits"}
RESULTS = Path(__file__).with_name("results")
CHOSEN = "chosen.json"


class Folder:
    """Bundles of single layers, one for each family, and of ResNet-18; all made for TARGET.

    A folder that is kept is taken as it is, by whatever version of the compiler it was made.
    """

    def __init__(self, folder: Path | None, say):
        self.bench = Bench(TARGET, say, folder)
        self.path, self.open = self.bench.folder, {}

    def layer(self, shape: ConvShape, bits: Bits, family: str) -> Path:
        """The bundle whose layer `conv` is computed by `family`."""
        name = f"conv {shape} {bits}"
        source = self.bench.onnx(name, lambda: conv_layer(shape, bits))
        path = self._path(source, family)
        if not path.exists():
            self.bench.say(f"compiling {name} by {family}")
            mp.compile(source, target=TARGET, output=path, families={"conv": family})
        return path

    def has(self, shape: ConvShape, bits: Bits, family: str) -> bool:
        """Whether the folder has that bundle."""
        return self._path(self.bench.onnx(f"conv {shape} {bits}", lambda: conv_layer(shape, bits)), family).exists()

    def _path(self, source: Path, family: str) -> Path:
        return source.with_name(f"{source.stem}_{family}.mpc")

    def chosen(self, shape: ConvShape, bits: Bits) -> str:
        """The family that compiling would choose, remembered in the folder."""
        from mpcompile.compiler.passes.base import apply_all
        from mpcompile.compiler.passes.choose_formats import ChooseFormats
        from mpcompile.compiler.passes.to_layers import TO_LAYERS
        from mpcompile.frontend import load
        from mpcompile.targets import load_target

        file, name = self.path / CHOSEN, f"conv {shape} {bits}"
        known = json.loads(file.read_text()) if file.exists() else {}
        if name not in known:
            source = self.bench.onnx(name, lambda: conv_layer(shape, bits))
            graph = apply_all(load(source), TO_LAYERS)
            known[name] = ChooseFormats(load_target(TARGET)).apply(graph).families["conv"][0, 0]
            file.write_text(json.dumps(known, indent=1) + "\n")
        return known[name]

    def timer(self, shape: ConvShape, bits: Bits, family: str) -> Timer:
        """The layer alone, one thread; its bundle's output is that of every other family, bit for bit."""
        name = f"conv {shape} {bits}"
        bundle = self._opened(self.layer(shape, bits, family))
        x, _ = self.bench.example(name)
        y = bundle.run(x)
        if (self.open.setdefault(name, y) != y).any():
            raise MpError(f"{name} by {family} gives another result than by the family before")
        return bundle.layer_timers()["conv"]

    def network(self, bits: Bits) -> Timer:
        name = f"resnet18 {bits}"
        bundle = self._opened(self.bench.compiled(name, lambda: resnet18(bits)))
        return bundle.timer(self.bench.example(name)[0])

    def _opened(self, path: Path):
        if path not in self.open:
            self.open[path] = mp.open_bundle(path, threads=1)
        return self.open[path]

    def prepare(self, parts) -> None:
        if "layers" in parts:
            for bits, families in LAYERS.items():
                for shape in RESNET18_LAYERS:
                    self.chosen(shape, bits)
                    for family in _of(shape, families):
                        for one in {shape, *halves(shape)}:
                            self.layer(one, bits, family)
        if "choices" in parts:
            for bits in CHOICES:
                for shape in CHOICE_SHAPES:
                    self.chosen(shape, bits)
                    for family in FAMILIES:
                        self.layer(shape, bits, family)
        if "networks" in parts:
            prepare_baselines(self.bench, "resnet18", resnet18)
            for bits in NETWORKS:
                self.bench.compiled(f"resnet18 {bits}", lambda: resnet18(bits))


def _of(shape: ConvShape, families: tuple[str, ...]) -> list[str]:
    """Those that compute such a layer."""
    return [family for family in families if family != "winograd" or shape.stride == 1]


def layer_results(now: Folder, before: Folder | None, rounds: int) -> list[dict]:
    """Of each layer, bit pair and family: seconds, shares of the ceiling, seconds before and of the loop in C."""
    library, found = build(), []
    for bits, families in LAYERS.items():
        for shape in RESNET18_LAYERS:
            small, large = halves(shape)
            subjects: dict[str, Timer] = dict(roofline.timers(TARGET))
            case = Case(library, bits.w, bits.a, shape.c)
            for family in _of(shape, families):
                subjects |= {
                    f"{family} {n}": now.timer(s, bits, family)
                    for n, s in (("whole", shape), ("small", small), ("large", large))
                }
                if before and before.has(shape, bits, family):
                    subjects[f"{family} before"] = before.timer(shape, bits, family)
                in_c = IN_C[family] if IN_C[family] in case.operands else "dot in 32 bits"
                subjects[f"{family} C"] = case.timer(in_c)
            seconds = {n: t.seconds for n, t in _measured(now, f"{bits} {shape}", subjects, rounds).items()}
            ceilings = roofline.Ceilings(
                **{n: loop.rate(seconds[f"roofline {n}"]) for n, loop in roofline.loops(TARGET).items()}, target=TARGET
            )
            row = {
                "bits": str(bits),
                "layer": str(shape),
                "macs": shape.macs,
                "clock": ceilings.clock,
                "chosen": now.chosen(shape, bits),
                "families": {},
            }
            row |= {"chosen_before": before.chosen(shape, bits)} if before else {}
            for family in _of(shape, families):
                work = {"popcount": bits.w * bits.a, "lookup": bits.w * -(-bits.a // 4)}.get(family, 1)
                ceiling = (
                    ceilings.lookup
                    if family == "lookup"
                    else ceilings.popcount
                    if family == "popcount"
                    else ceilings.dot
                    if "dot in 16 bits" not in case.operands
                    else ceilings.few
                )
                inside = (large.macs - small.macs) / (seconds[f"{family} large"] - seconds[f"{family} small"])
                row["families"][family] = {
                    "seconds": seconds[f"{family} whole"],
                    "ceiling": ceiling / work,
                    "loop": inside * work / ceiling,
                    "whole": shape.macs / seconds[f"{family} whole"] * work / ceiling,
                    "c_seconds": seconds[f"{family} C"] * shape.macs / (case.sums.size * 9 * shape.c),
                    **({"before": seconds[f"{family} before"]} if f"{family} before" in seconds else {}),
                }
            found.append(row)
    return found


def choice_results(now: Folder, before: Folder | None, rounds: int) -> list[dict]:
    """Of each bit pair and shape: seconds of each family, the chosen one, and the one chosen before."""
    found = []
    for shape in CHOICE_SHAPES:
        for bits in CHOICES:
            subjects = {family: now.timer(shape, bits, family) for family in FAMILIES}
            seconds = _measured(now, f"{bits} {shape}", subjects, rounds)
            found.append(
                {
                    "bits": str(bits),
                    "layer": str(shape),
                    "chosen": now.chosen(shape, bits),
                    "seconds": {n: t.seconds for n, t in seconds.items()},
                }
                | ({"chosen_before": before.chosen(shape, bits)} if before else {})
            )
    return found


def network_results(now: Folder, before: Folder | None, rounds: int) -> list[dict]:
    """ResNet-18 of each bit pair, before and now, and ONNX Runtime."""
    subjects = baselines(now.bench, "resnet18", resnet18)
    subjects |= {f"{bits} now": now.network(bits) for bits in NETWORKS}
    subjects |= {f"{bits} before": before.network(bits) for bits in NETWORKS} if before else {}
    seconds = {n: t.seconds for n, t in _measured(now, "ResNet-18", subjects, rounds).items()}
    return [
        {"bits": str(bits), "now": seconds[f"{bits} now"], "int8": seconds["int8"], "fp32": seconds["fp32"]}
        | ({"before": seconds[f"{bits} before"]} if before else {})
        for bits in NETWORKS
    ]


def _measured(folder: Folder, what: str, subjects: dict[str, Timer], rounds: int):
    folder.bench.say(f"measuring {what}")
    return measure(subjects, rounds=rounds).timings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avx2", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the parts (default: all)")
    parser.add_argument("--rounds", type=int, default=11, help="good samples of each (default: %(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="keep networks and bundles there, and take what is there already: empty it when the compiler has changed",
    )
    parser.add_argument("--before", type=Path, metavar="DIR", help="a folder that an older version prepared")
    parser.add_argument("--prepare", action="store_true", help="only make and compile, into --folder")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for avx2.json and avx2.md")
    args = parser.parse_args()
    if args.prepare and not args.folder:
        parser.error("--prepare needs --folder")
    if args.before and not (args.before / CHOSEN).exists():
        parser.error(f"--before {args.before} is no folder that --prepare filled")
    say = lambda line: print(line, file=sys.stderr, flush=True)
    try:
        now, before = Folder(args.folder, say), Folder(args.before, say) if args.before else None
        if args.prepare:
            now.prepare(args.only)
            return 0
        file = args.output / "avx2.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        measures = {"layers": layer_results, "choices": choice_results, "networks": network_results}
        for part in args.only:
            kept[part] = {
                "cpu": cpu.name(),
                "when": time.strftime("%Y-%m-%d"),
                "rows": measures[part](now, before, args.rounds),
            }
            args.output.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(kept, indent=1) + "\n")
            file.with_suffix(".md").write_text(markdown(kept))
    except MpError as error:
        complain(str(error))
        return error.exit_code
    print(file.with_suffix(".md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
