"""Winograd's tiles on this machine: ResNet-18's 3×3 layers by each family, and the whole network, one thread.

    python -m benchmarks.winograd [--only layers networks opening] [--bits 4x4 8x8] [--rounds N] [--folder DIR]

`layers`: each 3×3 layer of stride 1 alone, by `winograd`, `dot` and, up to w·a = 4, `popcount`, in turn; µs, and how many
times as fast as the faster of the others `winograd` is. `networks`: ResNet-18 as the cost model chooses, by `dot`
everywhere, and ONNX Runtime's int8, in turn. `opening`: a fresh process that opens the chosen network and runs it once:
CPU seconds of importing, of opening and of the first run, and its greatest resident memory beside the bundle's weights.
Outputs of all families are compared, and any difference is an error. --folder keeps networks and bundles, and takes what
is there: empty it when the compiler has changed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import mpcompile as mp
from benchmarks.compiled import Bench
from benchmarks.networks import RESNET18_LAYERS, Bits, Network, conv_layer, resnet18
from benchmarks.onnxruntime_baseline import baselines
from mpcompile.cli.console import complain
from mpcompile.errors import MpError
from mpcompile.latency.measure import measure

BITS = tuple(Bits(w, a) for w, a in ((1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (4, 4), (8, 8)))
PARTS = ("layers", "networks", "opening")
CHOSEN = "chosen"
OPENING = """
import json, re, sys
from time import process_time as now
import numpy as np
x = np.load(sys.argv[2])["x"]
start = now()
import mpcompile as mp
opening = now()
bundle = mp.open_bundle(sys.argv[1], threads=1)
running = now()
bundle.run(x)
done = now()
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])  # getrusage's is the parent's, too
json.dump({"import": opening - start, "open": running - opening, "run": done - running, "MiB": peak / 1024}, sys.stdout)
"""


class Folder:
    """ONNX files, and a bundle of each for each way to compute it."""

    def __init__(self, folder: Path | None, say):
        self.bench = Bench("native", say, folder)
        self.open: dict[Path, mp.Bundle] = {}

    def path(self, name: str, make, family: str, layer: str = "*") -> Path:
        """The bundle of make() → Network, whose `layer` is computed by `family`, or by what the cost model chooses."""
        source = self.bench.onnx(name, make)
        path = source.with_name(f"{source.stem}_{family}.mpc")
        if not path.exists():
            self.bench.say(f"compiling {name} by {family}")
            mp.compile(source, output=path, families={} if family == CHOSEN else {layer: family})
        return path

    def bundle(self, name: str, make, family: str, layer: str = "*") -> mp.Bundle:
        """The same, opened on one thread; its outputs are those of every other family."""
        path = self.path(name, make, family, layer)
        if path not in self.open:
            self.open[path] = mp.open_bundle(path, threads=1)
            x, _ = self.bench.example(name)
            first = next(b for p, b in self.open.items() if p.name.rpartition("_")[0] == path.name.rpartition("_")[0])
            if (first.run(x) != self.open[path].run(x)).any():
                raise MpError(f"{name} by {family} gives another result than {first.path.name}")
        return self.open[path]


def layers(folder: Folder, all_bits: list[Bits], rounds: int) -> None:
    print("| layer | bits | winograd µs | dot | popcount | times |\n|---|---|---|---|---|---|")
    for bits in all_bits:
        for shape in (shape for shape in RESNET18_LAYERS if shape.stride == 1):
            name = f"conv {shape} {bits}"
            make = lambda shape=shape, bits=bits: conv_layer(shape, bits)
            ways = ["winograd", "dot", *(["popcount"] if bits.w * bits.a <= 4 else [])]
            subjects = {way: folder.bundle(name, make, way, "conv").layer_timers()["conv"] for way in ways}
            found = {way: t.seconds for way, t in measure(subjects, rounds=rounds).timings.items()}
            others = [found[way] for way in ways[1:]]
            cells = [f"{found[way] * 1e6:.0f}" if way in found else "–" for way in ("winograd", "dot", "popcount")]
            print(f"| {shape} | {bits} | {' | '.join(cells)} | {min(others) / found['winograd']:.2f} |", flush=True)


def networks(folder: Folder, all_bits: list[Bits], rounds: int) -> None:
    subjects = baselines(folder.bench, "resnet18", resnet18)
    for bits in all_bits:
        x, _ = folder.bench.example(_network(folder, bits))
        for way in (CHOSEN, "dot"):
            subjects[f"{bits} {way}"] = folder.bundle(f"resnet18 {bits}", _maker(bits), way).timer(x)
    found = {name: t.seconds for name, t in measure(subjects, rounds=rounds).timings.items()}
    print(f"\nONNX Runtime int8: {found['int8'] * 1e3:.2f} ms, fp32: {found['fp32'] * 1e3:.2f} ms\n")
    print("| ResNet-18 | chosen ms | dot ms | times dot | times ONNX Runtime int8 |\n|---|---|---|---|---|")
    for bits in all_bits:
        ours, dot = found[f"{bits} {CHOSEN}"], found[f"{bits} dot"]
        print(f"| {bits} | {ours * 1e3:.2f} | {dot * 1e3:.2f} | {dot / ours:.2f} | {found['int8'] / ours:.2f} |")


def opening(folder: Folder, all_bits: list[Bits], rounds: int) -> None:
    print("\n| ResNet-18 | weights MiB | import ms | open ms | first run ms | peak MiB |\n|---|---|---|---|---|---|")
    for bits in all_bits:
        name = _network(folder, bits)
        path = folder.path(name, _maker(bits), CHOSEN)
        with zipfile.ZipFile(path) as archive:
            weights = sum(info.file_size for info in archive.infolist() if info.filename.endswith(".weights"))
        runs = [_fresh(path, folder.bench._example(name)) for _ in range(rounds)]
        least = {key: min(run[key] for run in runs) for key in runs[0]}
        times = " | ".join(f"{least[key] * 1e3:.0f}" for key in ("import", "open", "run"))
        print(f"| {bits} | {weights / 2**20:.1f} | {times} | {least['MiB']:.0f} |")


def _fresh(path: Path, example: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", OPENING, path, example], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def _maker(bits: Bits):
    def make() -> Network:
        return resnet18(bits)

    return make


def _network(folder: Folder, bits: Bits) -> str:
    """Its name; its file is there."""
    folder.bench.onnx(f"resnet18 {bits}", _maker(bits))
    return f"resnet18 {bits}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.winograd", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the parts (default: all)")
    parser.add_argument("--bits", nargs="+", metavar="WxA", help="some of the bit pairs, such as 4x4 (default: all)")
    parser.add_argument("--rounds", type=int, default=11, help="good samples of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep networks and bundles there")
    args = parser.parse_args()
    try:
        bits = [Bits(*map(int, text.split("x"))) for text in args.bits] if args.bits else list(BITS)
    except (TypeError, ValueError):
        parser.error("--bits takes pairs such as 4x4")
    folder = Folder(args.folder, lambda line: print(line, file=sys.stderr, flush=True))
    try:
        for part, measured in (("layers", layers), ("networks", networks), ("opening", opening)):
            if part in args.only:
                measured(folder, bits, args.rounds)
    except MpError as error:
        complain(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
