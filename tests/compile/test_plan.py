"""The static plan of networks by hand: what is stored, where, how long, and how much memory that takes."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.compiler.offsets import aligned
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.plan import Arg, Plan
from mpcompile.reference.run import run
from mpcompile.runtime import archive, open_bundle
from mpcompile.runtime.memory import CpuMemory
from mpcompile.runtime.shared_weights import joined
from tests.compile.plans import check_plan
from tests.passes.nets import A2, Net

TARGET = "x86-64-v2"


@dataclass
class Compiled:
    plan: Plan
    weights: bytes
    graph: object
    bundle: object

    def constants(self, layer: str) -> dict[int, bytes]:
        """Offset → bytes of each constant that the layer's calls read."""
        return {a.offset: self.bytes_of(a) for c in self.plan.calls if c.layer == layer for a in c.args if _constant(a)}

    def bytes_of(self, arg: Arg) -> bytes:
        return self.weights[arg.offset : arg.offset + _nbytes(arg)]


def _constant(arg: Arg) -> bool:
    return arg.space == "weights"


def _nbytes(arg: Arg) -> int:
    return int(np.prod(arg.shape, dtype=np.int64)) * np.dtype(arg.dtype).itemsize


@pytest.fixture
def compiled(tmp_path):
    opened = []

    def compile_net(graph) -> Compiled:
        path = compile_model(graph, TARGET, tmp_path / "m.mpc", records="none")
        bundle = open_bundle(path, 1)
        opened.append(bundle)
        weights = joined(bundle.variant.weights, archive.read_archive(path).members, CpuMemory()).tobytes()
        return Compiled(bundle.plan, weights, graph, bundle)

    yield compile_net
    for bundle in opened:
        bundle.close()


def chain(*widths: int, alike: bool = False):
    """1×1 convolutions one after another, each requantized; `alike`: all with the weights of the first."""
    net = Net(widths[0], 4, 4)
    x = net.quant("x", A2, "q0")
    for i, width in enumerate(widths[1:], 1):
        y = net.conv(x, width, 1, called=f"c{i}", scale=np.full(width, 0.05))
        first = net.graph.nodes[1]
        if alike:
            net.graph.nodes[-1] = replace(net.graph.nodes[-1], weight=first.weight)
        x = net.quant(y, A2, f"q{i}")
    return net.done(x)


def test_equal_constants_are_stored_once(compiled):
    """Layers of the same weights read the same bytes, the last its weights at least: it writes float. Other weights lie
    elsewhere."""
    alike, different = compiled(chain(64, 64, 64, 64, alike=True)), compiled(chain(64, 64, 64, 64))
    layers = [c.layer for c in alike.plan.calls if any(map(_constant, c.args))]
    first, second, third = (alike.constants(layer) for layer in layers[-3:])
    assert first == second and max(first, key=lambda at: len(first[at])) in third
    for made in (alike, different):
        places: dict[bytes, set[int]] = {}
        for call in made.plan.calls:
            for arg in filter(_constant, call.args):
                places.setdefault(made.bytes_of(arg), set()).add(arg.offset)
        assert all(len(offsets) == 1 for offsets in places.values())
        assert len(made.weights) <= sum(aligned(len(data)) for data in places)
        assert all(offset % 64 == 0 for offsets in places.values() for offset in offsets)
    assert len(different.weights) > 2 * 64 * 64 / 4 + len(alike.weights)


def test_a_chain_takes_the_two_largest_neighbours(compiled):
    """While a layer runs, its input and its output are alive, and nothing else."""
    made = compiled(chain(16, 64, 16, 128, 16))
    check_plan(made.plan)
    stored = {}
    for placed in made.plan.buffers:
        if placed.arg.space == "workspace":
            stored.setdefault(placed.written, []).append(placed)
    sizes = [sum(p.buffer.nbytes for p in stored[call]) for call in sorted(stored)]
    assert made.plan.live_bytes == max(a + b for a, b in pairwise(sizes))
    assert made.plan.workspace_bytes == max(aligned(a) + aligned(b) for a, b in pairwise(sizes))
    for placed in made.plan.buffers:
        if placed.arg.space == "workspace":
            assert placed.last_read == placed.written + 1


def test_a_skip_is_alive_until_it_is_added(compiled):
    net = Net(32, 4, 4)
    skip = y = net.quant("x", A2, "skip")
    for i in range(3):
        y = net.quant(net.conv(y, 32, 1), A2, f"y{i}")
    made = compiled(net.done(net.quant(net.add(y, skip), A2, "end")))
    check_plan(made.plan)
    held = [p for p in made.plan.buffers if p.buffer.tensor == "skip"]
    assert held and max(p.last_read for p in held) == len(made.plan.calls) - 1
    during = [p for p in made.plan.buffers if p.arg.space == "workspace" and p.buffer.tensor != "skip"]
    assert all(p.arg.offset != held[0].arg.offset for p in during if p.written > held[0].written)


def test_outputs_are_written_into_the_callers_arrays(compiled):
    """No call copies them, and they take nothing of the workspace."""
    made = compiled(chain(16, 32))
    (out,) = [p for p in made.plan.buffers if p.buffer.tensor == made.graph.outputs[0] and p.buffer.format == "plain"]
    assert (out.arg.space, out.arg.offset) == ("output", 0)
    assert [a for c in made.plan.calls for a in c.args if a.space == "output"] == [out.arg]
    assert made.plan.calls[-1].args[-1] == out.arg


def test_an_output_that_is_an_input_or_another_output_is_copied(compiled):
    """Each output of the model is an array of its own."""
    net = Net(16, 4, 4)
    y = net.affine(net.conv(net.quant("x", A2), 16, 1), 2.0, 0.5)
    made = compiled(net.done(y, "x", net.reshape(y, 16, 16)))
    outputs = [a.offset for c in made.plan.calls for a in c.args if a.space == "output"]
    assert sorted(set(outputs)) == [0, 1, 2]
    x = np.random.default_rng(0).standard_normal((16, 4, 4), np.float32)
    executor = made.bundle._executor
    first, same, again = executor.run([x])
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(first, again.reshape(first.shape))
    np.testing.assert_array_equal(first, run(apply_all(made.graph, TO_LAYERS), {"x": x})[y].reshape(first.shape))
    assert len({a.ctypes.data for a in (first, same, again)}) == 3
