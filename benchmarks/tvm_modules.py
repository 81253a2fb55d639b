"""python -m benchmarks.tvm_modules: what BitSerialize makes of a network in Relay and in Relax, against the bundle of the
same file, Relay's own float operators, and nn.bitserial_conv2d of TVM 0.19.

One thread; all of a network's subjects in turn in one run, those of TVM 0.19 in a process of its own (make relay-env). A
subject whose numbers are not the bundle's, bit for bit, is an error (Relay's float, which rounds otherwise, excepted).
nn.bitserial_conv2d is its convolutions alone, of those with at most MOST_BITS bits and no groups, each by the fastest of
four settings (layout, word) that compute the right result, or of what autotvm found in --trials schedules of it: no
quantizers, no batch normalization, nothing between them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

os.environ.setdefault("TVM_NUM_THREADS", "1")

import mpcompile as mp
from benchmarks.networks import Bits, ConvShape, resnet18
from benchmarks.pages import RESULTS, ROOT
from benchmarks.tvm019 import Tvm019
from benchmarks.tvm_bitserial import Bitserial
from mpcompile.cli.console import complain
from mpcompile.errors import MpError, UsageError
from mpcompile.frontend import load
from mpcompile.ir.graph import Conv
from mpcompile.latency.measure import Measurement, measure
from mpcompile.latency.timer import Timer, local
from mpcompile.targets import cpu, load_target

DEMO = ROOT / "runs" / "demo" / "model.onnx"
MOST_BITS = 4
BUNDLE, RELAY, RELAX, FLOAT, BITSERIAL = "bundle", "relay", "relax", "relay float", "nn.bitserial_conv2d"
TITLES = {
    RELAY: "Relay, BitSerialize",
    RELAX: "Relax, BitSerialize",
    FLOAT: "Relay's own float",
    BITSERIAL: f"its convolutions of ≤ {MOST_BITS} bits by nn.bitserial_conv2d",
}


def low_convolutions(model: Path) -> Counter[tuple[ConvShape, Bits]]:
    """How often each convolution is there that nn.bitserial_conv2d can stand for."""
    graph, found = load(model), Counter()
    for node in graph.nodes:
        if not isinstance(node, Conv) or node.groups != 1 or len(node.strides) != 2:
            continue
        (c, h, w), (o, _, k, kw) = graph.types[node.inputs[0]].shape, node.weight.q.shape
        grid = graph.types[node.inputs[0]].grid
        square = h == w and k == kw and set(node.strides) == {node.strides[0]} and set(node.dilations) == {1}
        if grid and square and node.pads == ((k // 2, k // 2),) * 2:
            bits = Bits(len(node.weight.grid.plane_weights), len(grid.plane_weights))
            if max(bits.w, bits.a) <= MOST_BITS:
                found[ConvShape(c, h, o, node.strides[0], k), bits] += 1
    return found


def bitserial(server: Bitserial, layers: Counter[tuple[ConvShape, Bits]], trials: int) -> tuple[Timer | None, int]:
    """Those that it can compute (channels that fill no word, it cannot) in turn, and how many they are."""
    timers = []
    for (shape, bits), count in layers.items():
        timers += [
            (timer, count) for name, timer in server.timers(shape, bits, trials).items() if name.startswith("best")
        ]
    if not timers:
        return None, 0
    made = Timer(lambda n: sum(timer.seconds(n) * count for timer, count in timers), timers[0][0].waits)
    return made, sum(count for _, count in timers)


def relax_timer(
    model: Path, target: str, inputs: dict[str, np.ndarray], folder: Path
) -> tuple[Timer, list[np.ndarray]]:
    """Of Relax's VirtualMachine, and its outputs."""
    import tvm
    from tvm import relax

    from mpcompile.tvm_frontend.relax.through import build

    build(model, None, target, {k: list(x.shape) for k, x in inputs.items()}, None, folder / "relax.so")
    run = relax.VirtualMachine(tvm.runtime.load_module(str(folder / "relax.so")), tvm.cpu())["main"]
    tensors = [tvm.runtime.tensor(x) for x in inputs.values()]
    made = run(*tensors)
    return local(lambda: run(*tensors)), [made.numpy()] if hasattr(made, "numpy") else [part.numpy() for part in made]


def measured(name: str, model: Path, target: str, rounds: int, trials: int, servers: tuple[Tvm019, Bitserial]) -> dict:
    """A network's row."""
    relay, operators = servers
    with tempfile.TemporaryDirectory(prefix="mpcompile-bench-") as made:
        folder = Path(made)
        mp.compile(model, target=target, output=folder / "net.mpc")
        with mp.open_bundle(folder / "net.mpc", threads=1) as bundle:
            rng = np.random.default_rng(0)
            inputs = {p.name: rng.standard_normal((1, *p.shape)).astype(np.float32) for p in bundle.inputs}
            np.savez(folder / "x.npz", **inputs)
            found = bundle.run(inputs)
            wanted = [found[p.name] for p in bundle.outputs] if isinstance(found, dict) else [found]

            def same(what: str, outputs: Sequence[np.ndarray]) -> None:
                if any(a.tobytes() != b.tobytes() for a, b in zip(outputs, wanted, strict=True)):
                    raise MpError(f"{name}: {what} computes something else than the bundle")

            subjects = {BUNDLE: bundle.timer(inputs)}
            subjects[RELAX], outputs = relax_timer(model, target, inputs, folder)
            same(TITLES[RELAX], outputs)
            question = {"model": str(model), "target": target, "x": str(folder / "x.npz"), "y": str(folder)}
            for subject, rewritten in ((RELAY, True), (FLOAT, False)):
                key = f"{name} {subject}".replace("/", "_")
                relay.ask({"build": key, "rewritten": rewritten, **question})
                if rewritten:
                    same(TITLES[RELAY], [np.load(folder / f"output{i}.npy") for i in range(len(wanted))])
                subjects[subject] = relay.timer({"run": key})
            timer, convolutions = bitserial(operators, low_convolutions(model), trials)
            if timer:
                subjects[BITSERIAL] = timer
            return {**row(name, measure(subjects, rounds=rounds), convolutions), "trials": trials}


def row(name: str, found: Measurement, convolutions: int) -> dict:
    return {
        "network": name,
        "microseconds": {n: t.seconds * 1e6 for n, t in found.timings.items()},
        "spread": {n: t.spread for n, t in found.timings.items()},
        "over_bundle": {n: found.ratio(n, BUNDLE) for n in found.timings if n != BUNDLE},
        "convolutions": convolutions,
        "note": found.note(),
    }


def markdown(result: dict) -> str:
    """A line a network: the bundle's time, and how many times it every other one takes."""
    lines = [
        f"On {result['cpu']}, one thread, {result['when']}: times of each other way over the bundle's, a row in one run.",
        "",
        "| network | bundle | " + " | ".join(TITLES.values()) + " |",
        "|---|---|" + "---|" * len(TITLES),
    ]
    for r in result["rows"]:
        cells = [f"{r['over_bundle'][n]:.2f}×" if n in r["over_bundle"] else "" for n in TITLES]
        tried = f", {r['trials']} trials each" if r["trials"] else ""
        cells[-1] += f" ({r['convolutions']} layers{tried})" if cells[-1] else ""
        lines.append(f"| {r['network']} | {r['microseconds'][BUNDLE]:.0f} µs | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tvm_modules", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        metavar="MODEL.onnx",
        help="networks of yours (default: the one that `make demo` chose, where it has run)",
    )
    parser.add_argument(
        "--resnet18",
        nargs="*",
        type=lambda text: Bits(int(text[1]), int(text[3])),
        default=[Bits(1, 2), Bits(2, 2), Bits(4, 4)],
        metavar="wWaA",
        help="ResNet-18 at these bits (default: w1a2 w2a2 w4a4)",
    )
    parser.add_argument("--size", type=int, default=224, help="of ResNet-18's image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="good samples of each (default: %(default)s)")
    parser.add_argument(
        "--trials", type=int, default=0, help="schedules of each nn.bitserial_conv2d that autotvm tries (default: none)"
    )
    parser.add_argument("--target", default="native", help="what to compile for (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    result = {"cpu": cpu.name(), "when": time.strftime("%Y-%m-%d"), "rows": kept(args.output)}
    try:
        for found in rows(args):
            result["rows"] = [r for r in result["rows"] if r["network"] != found["network"]] + [found]
            keep(args.output, result)
    except MpError as error:
        complain(str(error))
        return error.exit_code
    print(markdown(result))
    return 0


def kept(folder: Path) -> list[dict]:
    """The rows of runs of today on this CPU: networks may be measured one by one."""
    try:
        held = json.loads((folder / "tvm_modules.json").read_text())
    except FileNotFoundError:
        return []
    return held["rows"] if (held["cpu"], held["when"]) == (cpu.name(), time.strftime("%Y-%m-%d")) else []


def keep(folder: Path, result: dict) -> None:
    """What is known so far: a network may take many minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tvm_modules.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "tvm_modules.md").write_text(markdown(result))


def rows(args: argparse.Namespace) -> Iterator[dict]:
    """Of every network that was asked for, as it was measured."""
    models = {path.stem: path for path in args.models} or ({"the demo's network": DEMO} if DEMO.exists() else {})
    for path in args.models:
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
    servers = Tvm019("tvm_modules_server"), Bitserial(load_target(args.target).mcpu)
    try:
        with tempfile.TemporaryDirectory(prefix="mpcompile-bench-") as folder:
            for bits in args.resnet18:
                models[f"ResNet-18 {args.size}², {bits}"] = path = Path(folder) / f"resnet18_{bits}.onnx"
                resnet18(bits, size=args.size).save(path)
            if not models:
                raise UsageError("there is no network: name one, or run make demo")
            for name, path in models.items():
                print(f"measuring {name}", file=sys.stderr, flush=True)
                yield measured(name, path, args.target, args.rounds, args.trials, servers)
    finally:
        for server in servers:
            server.close()


if __name__ == "__main__":
    sys.exit(main())
