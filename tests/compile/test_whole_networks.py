"""The networks of the benchmarks at small input sizes: generated, imported, compiled, and exact in every buffer."""

import numpy as np
import onnx
import pytest

from benchmarks.networks import NETWORKS, Bits
from benchmarks.networks.__main__ import main
from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.frontend import load
from mpcompile.ir.graph import FloatOp
from mpcompile.ir.grid import bipolar, twos_complement, unsigned
from mpcompile.ir.layer import ContractTerm, Layer, ViewTerm
from mpcompile.runtime import open_bundle

CASES = {
    "resnet20": (Bits(1, 1), 32),
    "vgg_small": (Bits(1, 2), 32),
    "resnet18": (Bits(2, 2), 64),
    "resnet50": (Bits(1, 2), 64),
    "googlenet": (Bits(4, 4), 64),
    "mobilenet_v1": (Bits(2, 2), 64),
    "mobilenet_v2": (Bits(4, 4), 64),
}
CONTRACTIONS = {
    "resnet20": 22,
    "vgg_small": 7,
    "resnet18": 21,
    "resnet50": 54,
    "googlenet": 58,
    "mobilenet_v1": 28,
    "mobilenet_v2": 53,
}
SHORTER = {"resnet50": {"counts": (1, 1, 1, 1)}, "googlenet": {"blocks": ("3a", "pool3", "4a")}}
"""What is compiled of the two that have many layers of one kind."""


@pytest.fixture(scope="module", params=CASES)
def network(request, tmp_path_factory):
    """(name, bits, Network, file)"""
    bits, size = CASES[request.param]
    made = NETWORKS[request.param](bits, size=size)
    path = tmp_path_factory.mktemp("networks") / f"{request.param}.onnx"
    made.save(path)
    return request.param, bits, made, path


def test_every_level_is_used_and_none_drowns_the_others(network):
    """By the shares of each activation quantizer's levels: up to 2 bits all occur, up to 4 most (of 128 values)."""
    _, _, made, _ = network
    for quantizer, shares in made.codes.items():
        if len(shares) <= 16:
            assert (shares > 0).mean() >= (1 if len(shares) <= 4 else 0.75), quantizer
        assert shares.max() < 0.9 and shares[-1] < 0.6, (quantizer, shares.round(2))
    assert made.y.std() > 0.2


def test_it_becomes_layers_alone(network):
    """No operator in float, no copy: each convolution once, adds and downsample convolutions inside layers."""
    name, bits, _made, path = network
    source = load(path)
    graph = apply_all(source, TO_LAYERS)
    assert all(isinstance(node, Layer) for node in graph.nodes)
    assert not any(isinstance(node, FloatOp) for node in source.nodes)
    terms = [t for node in graph.nodes for t in node.terms if isinstance(t, ContractTerm)]
    contractions = {s for node in graph.nodes for s in node.source} & {
        node.name for node in source.nodes if type(node).__name__ in ("Conv", "Dense")
    }
    assert len(contractions) == CONTRACTIONS[name] <= len(terms)
    inner = {part.grid for t in terms for part in t.parts} - {twos_complement(8)}
    assert inner == {bipolar() if bits.w == 1 else twos_complement(bits.w)}
    joined = [node for node in graph.nodes if len({type(t) for t in node.terms}) > 1 or len(node.terms) > 1]
    if name.startswith("resnet"):
        down = [node for node in graph.nodes if any(s.endswith("_down") for s in node.source)]
        assert down and all(sum(isinstance(t, ContractTerm) for t in node.terms) == 2 for node in down)
        skips = [node for node in joined if any(isinstance(t, ViewTerm) for t in node.terms)]
        assert len(down) + len(skips) == sum(type(node).__name__ == "Add" for node in source.nodes)
    if name == "googlenet":
        assert max(len(node.terms) for node in joined) == 4
    if name == "mobilenet_v2":
        grids = {graph.types[t].grid for node in graph.nodes for t in node.outputs}
        assert {twos_complement(4), unsigned(4), unsigned(8)} <= grids


@pytest.mark.parametrize("name", CASES)
def test_the_bundle_equals_the_reference(name, tmp_path):
    bits, size = CASES[name]
    made = NETWORKS[name](bits, size=size, **SHORTER.get(name, {}))
    made.save(tmp_path / "m.onnx")
    path = compile_model(tmp_path / "m.onnx")
    with open_bundle(path, 1) as bundle:
        report = verify(tmp_path / "m.onnx", bundle, made.x)
        assert report.equal, report.summary
        assert np.corrcoef(bundle.run(made.x).ravel(), made.y.ravel())[0, 1] > 0.9
        plan = bundle.plan
        assert len(plan.calls) == len(bundle.layers)
        assert plan.workspace_bytes <= 1.1 * plan.live_bytes
        written = {arg.dtype for placed in plan.buffers for arg in [placed.arg] if placed.buffer.format != "sums"}
        assert "int32" not in written


def test_the_command(tmp_path, capsys):
    out = tmp_path / "r.onnx"
    for form in ("qonnx", "float"):
        assert main(["resnet20", "--bits", "w1a2", "--form", form, "-o", str(out)]) == 0
        assert str(out) in capsys.readouterr().out
    assert not any(node.domain for node in onnx.load(out).graph.node)
    for bad in (["--bits", "w9a2"], ["--bits", "2"], ["--size", "8"]):
        assert main(["resnet20", *bad, "-o", str(out)]) == 2
    assert main(["resnet20", "-o", str(tmp_path / "none" / "r.onnx")]) == 2
