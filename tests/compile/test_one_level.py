"""A grid of one level, as QONNX writes a narrow unsigned bit: whatever is computed, it is 0; the layer compiles and is
exact."""

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.ir.graph import Quantizer
from mpcompile.ir.grid import twos_complement, unsigned
from tests.passes.nets import A2, PIXELS, Net

ONE = Quantizer(unsigned(1, narrow=True), 0.5)


def chain(net: Net, x: str) -> str:
    return net.conv(x, 8)


def residual(net: Net, x: str) -> str:
    """The quantizer reads a sum of two layers."""
    return net.add(net.conv(x, 8), net.conv(x, 8, 1))


def falling(net: Net, x: str) -> str:
    """A function that is not monotone."""
    return net.prelu(net.conv(x, 8), -0.5)


def beside_another(net: Net, x: str) -> str:
    """The layer writes codes of two bits, too."""
    y = net.conv(x, 8)
    net.graph.outputs.append(net.conv(net.quant(y, A2), 4))
    return y


@pytest.mark.parametrize("grid", [twos_complement(2), twos_complement(8)], ids=["w2", "w8"])
@pytest.mark.parametrize("before", [chain, residual, falling, beside_another])
def test_it_is_compiled_and_exact(before, grid, tmp_path):
    net = Net(3, 9, 9)
    y = net.quant(before(net, net.quant("x", PIXELS)), ONE)
    net.graph.outputs.append(net.conv(y, 8, grid=grid))
    assert ONE.grid.levels == 1
    report = verify(
        net.graph,
        compile_model(net.graph, output=tmp_path / "m.mpc"),
        {"x": np.random.default_rng(0).normal(0, 2, (2, 3, 9, 9)).astype(np.float32)},
    )
    assert report.equal, report.summary
