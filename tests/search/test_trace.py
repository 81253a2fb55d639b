"""Any module: what one pass sees of it, its quantized forward, and its file, whose codes are the forward's own."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError, UsageError
from mpcompile.frontend import load
from mpcompile.latency.requantize import knobs
from mpcompile.reference.run import model_inputs, run, run_node
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.trace.export import export
from mpcompile.search.trace.network import Knobs, trace, weights_of
from mpcompile.search.trace.plan import plan
from tests.search import modules
from tests.search.nets import random_assignment

BITS = (1, 2, 3, 4, 8)


# -- what one pass sees ------------------------------------------------------------------------------------------------
def seen(name):
    model, samples = modules.module(name)
    return plan(model, samples[:1], samples)


def test_layers_that_read_one_tensor_share_it():
    layers = seen("resnet").layers
    assert list(layers) == [
        *("conv1", "layer1.0.conv1", "layer1.0.conv2"),
        *("layer1.1.downsample.0", "layer1.1.conv1", "layer1.1.conv2", "fc"),
    ]
    read = {name: layer.tensor for name, layer in layers.items()}
    assert read["layer1.1.downsample.0"] == read["layer1.1.conv1"] == "layer1.1.downsample.0.input"
    assert len(set(read.values())) == len(read) - 1


def test_multiplications_are_counted():
    found = {name: layer.macs for name, layer in seen("mobilenet-v2").layers.items()}
    assert found["features.0.0"] == 3 * 8 * 9 * 12 * 12
    assert found["features.1.conv.1.0"] == 16 * 9 * 6 * 6  # depthwise, at stride 2
    assert found["classifier.1"] == 32 * 10
    assert seen("audio").layers["features.0"].macs == 16 * 16 * 97
    assert seen("deit").layers["block.qkv"].macs == 17 * 16 * 48 and seen("deit").layers["head"].macs == 160


def test_signs_are_those_of_the_data():
    signed = seen("mobilenet-v3").signed
    assert signed["stem.0.input"] and signed["expand.0.input"] and not signed["se.fc2.input"]
    model, samples = modules.module("resnet")
    assert not plan(model, samples[:1], samples.abs()).signed["conv1.input"]
    assert plan(model, torch.zeros_like(samples[:1])).signed["conv1.input"]  # an example of zeros tells nothing


class Odd(nn.Module):
    """Of everything that is no layer of ours."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, 2)
        self.mirror = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.tokens, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.table = nn.Parameter(torch.ones(8, 4))

    def forward(self, x):
        x = self.mirror(self.up(self.conv(x))).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x)[0] + self.tokens(x[:, None])[:, 0]
        return self.two(self.one(x.mean(1))) @ self.table


def test_what_stays_float_is_named():
    found = plan(Odd().eval(), torch.randn(2, 3, 4, 4))
    assert list(found.layers) == ["conv"]
    for name, why in {
        "up": "ConvTranspose2d",
        "mirror": "pads by reflect",
        "attention": "MultiheadAttention",
        "tokens": "4 axes",
        "unused": "never called",
        "one": "shares its weights with two",
        "matmul in Odd": "no layer",
    }.items():
        assert why in found.floats[name], found.floats
    assert "is called 2 times" in seen("preactivation").floats["shared"]
    assert list(seen("deit").floats) == ["matmul in block"]
    for name in ("resnet", "mobilenet-v2", "mobilenet-v3", "googlenet", "shufflenet", "audio", "mlp"):
        assert not seen(name).floats, name


def test_functions_between_layers_read_codes():
    """Those that run once, before the last layer, and are not what the module returns."""
    assert list(seen("mobilenet-v3").functions) == ["stem.2", "expand.2", "depthwise.2", "head.1"]
    assert seen("mlp").functions == {"4": "4.input"} and seen("mlp").signed["4.input"]

    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Sigmoid()
            self.twice, self.early = nn.Tanh(), nn.Sigmoid()

        def forward(self, x):
            x = self.a(x)
            return self.early(x), self.last(self.b(self.twice(self.twice(x))))

    assert plan(Ends().eval(), torch.randn(3, 4)).functions == {}


def test_a_tensor_that_is_written_in_place_is_another_one():
    class Inplace(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = x + 0
            y = self.a(x)
            return y + self.b(x.relu_())

    found = plan(Inplace().eval(), torch.randn(3, 4))
    assert found.layers["a"].tensor != found.layers["b"].tensor
    assert found.signed == {"a.input": True, "b.input": False}


def test_the_module_is_left_as_it_was():
    model, samples = modules.module("mobilenet-v3")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = trace(model, samples[:1], sample=samples)
    network.start_clips(samples)
    assert all(m.training for m in model.modules()) and not any(m._forward_pre_hooks for m in model.modules())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_a_module_that_fails_names_the_place():
    model, _ = modules.module("preactivation")
    with pytest.raises(ModelError, match=r"an image of 2 pixels is too small \(modules.py, line \d+: raise ValueError"):
        plan(model, torch.randn(1, 3, 2, 2))
    with pytest.raises(ModelError, match="has no Conv1d, Conv2d or Linear"):
        plan(nn.Sequential(nn.ReLU()), torch.randn(1, 3))
    with pytest.raises(ModelError, match="batch in front"):
        plan(SumOfAll(), torch.randn(2, 3))


class SumOfAll(nn.Linear):
    def __init__(self):
        super().__init__(3, 3)

    def forward(self, x):
        return super().forward(x).sum()


class Guess(nn.Linear):
    """Goes its way by the data, which torch.export cannot follow."""

    def __init__(self):
        super().__init__(4, 4)

    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else -y


def test_what_cannot_be_traced_is_one_line_with_the_place(tmp_path, capfd):
    network = trace(Guess(), torch.randn(2, 4))
    with pytest.raises(ModelError) as found:
        export(network, tmp_path / "m.onnx")
    said = str(found.value)
    assert (
        said.startswith("Guess cannot be traced: ") and "return y if y.sum() > 0 else -y" in said and "\n" not in said
    )
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


# -- bits ----------------------------------------------------------------------------------------------------------------
def test_the_first_and_the_last_layer_keep_eight_bits():
    model, samples = modules.module("resnet")
    network = trace(model, samples[:1], Knobs(BITS, BITS))
    assert {name for name, c in network.weights.items() if not c.searched} == {"conv1", "fc"}
    assert {name for name, c in network.tensors.items() if not c.searched} == {"conv1.input", "fc.input"}
    assert network.uniform(2, 4).weights == dict.fromkeys(network.weights, 2) | {"conv1": 8, "fc": 8}


def test_bits_are_kept_by_name():
    model, samples = modules.module("resnet")
    network = trace(model, samples[:1], Knobs(BITS, BITS, keep={"layer1.*.conv2": 4, "layer1.1.downsample.0": 3}))
    fixed = {name: c.candidates for name, c in network.weights.items() if not c.searched}
    assert fixed == {"layer1.0.conv2": (4,), "layer1.1.conv2": (4,), "layer1.1.downsample.0": (3,)}
    assert network.tensors["layer1.1.downsample.0.input"].candidates == (3,)  # what it reads, whoever else does
    for keep, said in (({"fc2": 8}, "fc2 is no layer"), ({"fc": 9}, "from 1 to 8"), ({"fc": "8"}, "from 1 to 8")):
        with pytest.raises(UsageError, match=said):
            trace(model, samples[:1], Knobs(keep=keep))


def test_without_quantization_it_is_the_module():
    for name in modules.MODULES:
        model, samples = modules.module(name)
        network = trace(model, samples[:1]).eval()
        network.assign(None)
        with torch.no_grad():
            assert torch.equal(network(samples), model(samples)), name


def test_eight_bits_are_nearly_the_module():
    for name in ("resnet", "mobilenet-v3", "audio", "mlp"):
        model, samples = modules.module(name)
        network = trace(model, samples[:1], Knobs(BITS, BITS), samples).eval()
        network.start_clips(samples)
        network.assign(network.uniform(8, 8))
        with torch.no_grad():
            found, wanted = network(samples), model(samples)
        assert float((found - wanted).norm() / wanted.norm()) < 0.03, name


def test_a_mixture_reaches_every_strength_and_weight():
    model, samples = modules.module("mobilenet-v3")
    network = trace(model, samples[:1], Knobs((2, 8), (2, 8)), samples)
    network.start_clips(samples)
    method = EBS(network)
    method.mix(network, 0.0, torch.Generator().manual_seed(0), learn=True)
    network(samples).square().sum().backward()
    for name, parameter in [*method.named_parameters(), *network.named_parameters()]:
        assert parameter.grad is not None, name
        if not name.endswith("alpha"):  # nothing may lie beyond a clip
            assert parameter.grad.abs().sum() > 0, name


def test_one_candidate_with_all_probability_is_that_candidate():
    model, samples = modules.module("mobilenet-v3")
    network = trace(model, samples[:1], Knobs((2, 8), (2, 8)), samples).eval()
    network.start_clips(samples)
    network.assign(network.uniform(2, 8))
    with torch.no_grad():
        wanted = network(samples)
        for choice in network.choices():
            if choice.searched:
                choice.probs = torch.tensor([1.0, 0.0] if choice.name.endswith("weight") else [0.0, 1.0])
        assert torch.allclose(network(samples), wanted, atol=1e-5)


# -- the file ------------------------------------------------------------------------------------------------------------
class Recorded:
    """The codes of every tensor in a forward pass, as q, without the batch."""

    def __init__(self, network):
        self.found = {}
        for choice in network.tensors.values():
            choice.register_forward_pre_hook(self._hook)

    def _hook(self, choice, args):
        levels = choice.quantizer.codes(args[0], choice.bits)[0].numpy()
        self.found[choice.name] = choice.quantizer.grid(choice.bits).value(levels)


@pytest.fixture(scope="module", params=[(name, i) for i, name in enumerate(modules.MODULES)], ids=lambda p: p[0])
def exported(request, tmp_path_factory):
    """A module at random bits, and its file's graph."""
    name, seed = request.param
    model, samples = modules.module(name, seed)
    network = trace(model, samples[:1], Knobs(BITS, BITS, keep={}), samples).eval()
    network.start_clips(samples)
    network.assign(random_assignment(network, seed))
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export(network, path)
    return network, load(path), path, samples


def test_every_layer_and_tensor_is_found_in_the_file(exported):
    network, graph, path, _ = exported
    found = knobs(graph)
    assert {name: knob.quantizers for name, knob in found.items()} == {k: (t,) for k, t in network.reads().items()}
    reads = network.reads()
    for name, knob in found.items():
        assert (knob.w, knob.a) == (network.weights[name].bits, network.tensors[reads[name]].bits), name
    text = path.read_bytes()
    assert b"modules.py" not in text and b"mpcompile_name" not in text and str(path.parent).encode() not in text


def test_stored_weights_are_the_quantized_ones(exported):
    network, graph, _, _ = exported
    nodes = {n.name: n for n in graph.nodes}
    for layer, quantization in weights_of(network):
        grid = layer.choice.quantizer.grid(layer.choice.bits)
        weight = nodes[layer.name].weight
        q = grid.value(quantization.codes(layer.weight).numpy())
        if weight.grid != grid:  # read as the tightest grid of these integers
            assert (weight.grid.lo, weight.grid.hi, weight.grid.step) == (grid.lo, grid.hi, grid.step), layer.name
        np.testing.assert_array_equal(weight.q.reshape(q.shape), q)  # of tokens: with an axis more
        with torch.no_grad():
            forward = quantization(layer.weight).numpy()
        stretched = np.reshape(weight.scale, (-1, *[1] * (q.ndim - 1)))
        np.testing.assert_allclose(stretched * q, forward, rtol=2e-6, atol=1e-7)


def test_codes_are_the_same_layer_by_layer(exported):
    """Each layer is fed with the forward's own codes."""
    network, graph, _, samples = exported
    fused = apply_all(graph, TO_LAYERS)
    differing = total = 0
    met = set()
    recorded = Recorded(network)
    for sample in samples:
        with torch.no_grad():
            network(sample[None])
        tensors = model_inputs(fused, {"input": sample.numpy()})
        for node in fused.nodes:
            for name, value in run_node(node, fused, tensors).items():
                known = recorded.found.get(name.removesuffix(".map"))
                if known is None or fused.types[name].quantizer is None or known.size != value.size:
                    tensors[name] = value
                    continue
                met.add(name.removesuffix(".map"))
                known = known.reshape(value.shape).astype(value.dtype)
                steps = np.abs(known - value) // fused.types[name].grid.step
                assert steps.max() <= 1, f"{name}: off by {steps.max()} steps"
                differing, total = differing + np.count_nonzero(steps), total + steps.size
                tensors[name] = known
    assert met and differing <= max(1, 2e-4 * total)


def test_the_whole_network_answers_the_same(exported):
    network, graph, _, samples = exported
    fused = apply_all(graph, TO_LAYERS)
    with torch.no_grad():
        expected = network(samples).numpy()
    found = np.stack([run(fused, {"input": x.numpy()})["output"].reshape(-1) for x in samples])
    assert np.median(np.abs(found - expected)) < 1e-4 * max(1, np.abs(expected).max())


def test_a_float_module_is_plain_onnx(tmp_path):
    from onnx.reference import ReferenceEvaluator

    model, samples = modules.module("mobilenet-v3")
    network = trace(model, samples[:1])
    network.assign(None)
    export(network, tmp_path / "m.onnx")
    file = onnx.load(tmp_path / "m.onnx")
    assert not [n for n in file.graph.node if n.domain]
    with torch.no_grad():
        wanted = model(samples[:1]).numpy()
    np.testing.assert_allclose(
        ReferenceEvaluator(file).run(None, {"input": samples[:1].numpy()})[0], wanted, rtol=1e-4, atol=1e-5
    )


def test_a_mixture_cannot_be_exported(tmp_path):
    model, samples = modules.module("mlp")
    network = trace(model, samples[:1])
    EBS(network).mix(network, 0.0, torch.Generator(), learn=False)
    with pytest.raises(ModelError, match="mixture"):
        export(network, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_plain_module_is_the_network(exported):
    network, _, _, samples = exported
    with torch.no_grad():
        plain = network.plain()
        assert torch.equal(plain(samples), network(samples)) and type(plain) is type(network.model)
        assert not [k for k in plain.state_dict() if "parametrizations" in k]
