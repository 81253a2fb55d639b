"""Operators that run in float, alone, against ONNX Runtime on the same float32 file: one thread each, in turn.

python -m benchmarks.float_islands [NAME …] [--target NAME] [--rounds N] [--layers] [--json FILE]

Times are from the input in a buffer to the output in one, both ways.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mpcompile as mp
from mpcompile.latency import onnxruntime
from mpcompile.latency.measure import calibrate
from mpcompile.latency.timer import Timer

SAMPLE = 0.002
"""Seconds of one sample, at least: short, so that most fit between two turns of other processes."""
TARGET = 1 / 1.5
"""Of ONNX Runtime's speed, which a float operator must reach."""
OPSET = 17
TOKENS, WIDTH, HEADS = 197, 192, 3
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 1 / math.sqrt(shape[-1]), shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Island:
    """A model from `inputs` (name → shape) to y: nodes of opset OPSET, and what they read besides."""

    inputs: Mapping[str, tuple[int, ...]]
    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, np.ndarray]

    def model(self) -> onnx.ModelProto:
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs.items()]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        held = [numpy_helper.from_array(a, n) for n, a in self.constants.items()]
        graph = helper.make_graph(list(self.nodes), "island", ports, [result], held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def one(op: str, shape: tuple[int, ...], constants: Mapping[str, np.ndarray] | None = None, **attributes) -> Island:
    """An operator of one input."""
    constants = constants or {}
    return Island({"x": shape}, [helper.make_node(op, ["x", *constants], ["y"], **attributes)], constants)


def conv(inputs: int, outputs: int, size: int, kernel: int, stride: int = 1, group: int = 1) -> Island:
    held = {"w": weights(outputs, inputs // group, kernel, kernel), "b": weights(outputs)}
    attributes = dict(pads=[kernel // 2] * 4, strides=[stride] * 2, group=group)
    return one("Conv", (1, inputs, size, size), held, **attributes)


def attention() -> Island:
    """Of q, k and v beside each other, as DeiT splits them: softmax(q·kᵀ/√d)·v, heads beside each other again."""
    size = WIDTH // HEADS
    held = {
        "split": np.array([1, TOKENS, 3, HEADS, size], np.int64),
        "one": np.array([0], np.int64),
        "scale": np.array(1 / math.sqrt(size), np.float32),
        "joined": np.array([1, TOKENS, WIDTH], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "split"], ["parts"]),
        helper.make_node("Transpose", ["parts"], ["turned"], perm=[2, 0, 3, 1, 4]),
        helper.make_node("Split", ["turned"], ["q_", "k_", "v_"], axis=0),
        *(helper.make_node("Squeeze", [f"{n}_", "one"], [n]) for n in "qkv"),
        helper.make_node("Mul", ["q", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["scaled", "kt"], ["products"]),
        helper.make_node("Softmax", ["products"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["heads"]),
        helper.make_node("Transpose", ["heads"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "joined"], ["y"]),
    ]
    return Island({"x": (1, TOKENS, 3 * WIDTH)}, nodes, held)


def product(rows: int, depth: int, columns: int, heads: int = 1) -> Island:
    """Of two tensors that both are computed."""
    shapes = {"x": (1, heads, rows, depth), "z": (1, heads, depth, columns)}
    return Island(shapes, [helper.make_node("MatMul", ["x", "z"], ["y"])], {})


def gelu() -> Island:
    held = {
        "root": np.array(math.sqrt(2), np.float32),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Div", ["x", "root"], ["u"]),
        helper.make_node("Erf", ["u"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["s"]),
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]
    return Island({"x": (1, TOKENS, 4 * WIDTH)}, nodes, held)


def layer_norm_parts() -> Island:
    """As torch.onnx writes it below opset 17."""
    held = {
        "two": np.array(2, np.float32),
        "eps": np.array(1e-6, np.float32),
        "g": 1 + weights(WIDTH),
        "b": weights(WIDTH),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "eps"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["deviation"]),
        helper.make_node("Div", ["d", "deviation"], ["n"]),
        helper.make_node("Mul", ["n", "g"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["y"]),
    ]
    return Island({"x": (1, TOKENS, WIDTH)}, nodes, held)


def recurrent(op: str, gates: int, steps: int = 64, inputs: int = 128, hidden: int = 128) -> Island:
    """(1, steps, inputs) → the states (1, steps, hidden) after each, batch in front, as torch.onnx writes it."""
    held = {
        "w": weights(1, gates * hidden, inputs),
        "r": weights(1, gates * hidden, hidden),
        "b": weights(1, 2 * gates * hidden),
    }
    extra = {"linear_before_reset": 1} if op == "GRU" else {}
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
        helper.make_node(op, ["turned", *held], ["states"], hidden_size=hidden, **extra),
        helper.make_node("Squeeze", ["states", "one"], ["squeezed"]),
        helper.make_node("Transpose", ["squeezed"], ["y"], perm=[1, 0, 2]),
    ]
    return Island({"x": (1, steps, inputs)}, nodes, held | {"one": np.array([1], np.int64)})


ISLANDS: dict[str, Callable[[], Island]] = {
    "attention": attention,
    "queries by keys": lambda: product(TOKENS, WIDTH // HEADS, TOKENS, HEADS),
    "shares by values": lambda: product(TOKENS, TOKENS, WIDTH // HEADS, HEADS),
    "softmax": lambda: one("Softmax", (1, HEADS, TOKENS, TOKENS), axis=-1),
    "layer norm": lambda: one(
        "LayerNormalization", (1, TOKENS, WIDTH), {"g": 1 + weights(WIDTH), "b": weights(WIDTH)}, epsilon=1e-6
    ),
    "layer norm in parts": layer_norm_parts,
    "gelu": gelu,
    "sigmoid": lambda: one("Sigmoid", (1, 64, 56, 56)),
    "tanh": lambda: one("Tanh", (1, 64, 56, 56)),
    "dense over rows": lambda: one("MatMul", (1, TOKENS, WIDTH), {"w": weights(WIDTH, 4 * WIDTH)}),
    "conv 3×3": lambda: conv(64, 64, 56, 3),
    "conv 3×3, stride 2": lambda: conv(64, 128, 56, 3, 2),
    "conv 3×3, 14²": lambda: conv(256, 256, 14, 3),
    "conv 7×7, first": lambda: conv(3, 64, 112, 7, 2),
    "conv 1×1": lambda: conv(64, 128, 56, 1),
    "conv 1×1, 7²": lambda: conv(256, 512, 7, 1),
    "depthwise 3×3": lambda: conv(64, 64, 56, 3, group=64),
    "depthwise 3×3, stride 2": lambda: conv(64, 64, 56, 3, 2, group=64),
    "GRU": lambda: recurrent("GRU", 3),
    "LSTM": lambda: recurrent("LSTM", 4),
}


def measure(name: str, target: str, rounds: int, layers: bool) -> dict:
    """A row: microseconds of ours, ratios ONNX Runtime's time / ours (medians, least samples), the largest difference of
    the results relative to the largest value."""
    island = ISLANDS[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "island.onnx"
        onnx.save(island.model(), path)
        made = mp.compile(path, target, Path(folder) / "island.mpc")
        feeds = {n: np.random.default_rng(1).standard_normal(s, np.float32) for n, s in island.inputs.items()}
        session = onnxruntime.session(str(path), 1)
        with mp.open_bundle(made, 1) as bundle:
            wanted = np.asarray(session.run(None, feeds)[0])
            got = bundle.run(feeds)
            assert isinstance(got, np.ndarray)
            ours, theirs = in_turn([bundle.timer(feeds), onnxruntime.timer(session, feeds)], rounds)
            parts = {n: min(_samples(t, rounds)) for n, t in bundle.layer_timers(feeds).items()} if layers else {}
    return {
        "island": name,
        "us": 1e6 * median(ours),
        "ratio": median(theirs) / median(ours),
        "ratio_of_least": min(theirs) / min(ours),
        "error": float(np.abs(got.reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()),
        "layers": {n: 1e6 * s for n, s in parts.items()},
    }


def in_turn(timers: Sequence[Timer], rounds: int) -> list[list[float]]:
    """Seconds of a run of each, round by round."""
    counts = [calibrate(timer, SAMPLE) for timer in timers]
    taken: list[list[float]] = [[] for _ in timers]
    for _ in range(rounds):
        for timer, count, kept in zip(timers, counts, taken):
            kept.append(timer.seconds(count) / count)
    return taken


def _samples(timer: Timer, rounds: int) -> list[float]:
    return in_turn([timer], rounds)[0]


def table(rows: Sequence[dict], header: bool) -> str:
    """Markdown."""
    lines = [
        "| | µs | ONNX Runtime fp32 / mpcompile | of least times | largest difference | ≥ 0.67 |",
        "|---|---|---|---|---|---|",
    ]
    made = [
        f"| {r['island']} | {r['us']:.0f} | {r['ratio']:.2f} | {r['ratio_of_least']:.2f} | {r['error']:.0e} | "
        f"{'yes' if max(r['ratio'], r['ratio_of_least']) >= TARGET else 'NO'} |"
        for r in rows
    ]
    return "\n".join([*(lines if header else []), *made])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.float_islands", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {'; '.join(ISLANDS)} (default: all)")
    parser.add_argument("--target", default="native", help="what to compile for (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=41, help="samples of each (default: %(default)s)")
    parser.add_argument("--layers", action="store_true", help="the time of each layer, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows as JSON")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(ISLANDS))
    if unknown:
        parser.error(f"there is no {unknown[0]}: name some of {'; '.join(ISLANDS)}")
    rows = []
    for name in args.names or ISLANDS:
        rows.append(measure(name, args.target, args.rounds, args.layers))
        print(table(rows[-1:], len(rows) == 1), flush=True)
        for layer, us in rows[-1]["layers"].items():
            print(f"    {layer}: {us:.0f} µs")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
