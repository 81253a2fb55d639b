"""The exported file, read back, fused and run by the integer reference, against the fake-quantized forward: layer by
layer, each layer fed with the forward's own codes, and from end to end."""

import numpy as np
import onnx
import pytest
import torch

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.ir.graph import Conv, Dense
from mpcompile.reference.run import model_inputs, run, run_node
from mpcompile.search.export import export
from mpcompile.search.layers import ForwardPass
from mpcompile.search.loop import Recipe, retrain
from mpcompile.search.methods.ebs import EBS
from tests.search.nets import images, random_assignment, small

BITS = (1, 2, 3, 4, 8)


class Recorder(ForwardPass):
    """Keeps what every operator gives: codes q where quantized, else float32, without batch."""

    def __init__(self):
        self.found: dict[str, np.ndarray] = {}

    def note(self, name, x):
        self.found[name] = x[0].numpy()
        return x

    def quantize(self, choice, x):
        self.found[choice.name] = choice.quantizer.grid(choice.bits).value(
            choice.quantizer.codes(x, choice.bits)[0].numpy()
        )
        return choice(x)

    def relu(self, name, x):
        return self.note(name, super().relu(name, x))

    def mean(self, name, x):
        return self.note(name, super().mean(name, x))

    def dense(self, layer, x):
        return self.note("logits", super().dense(layer, x))


@pytest.fixture(scope="module", params=range(4))
def exported(request, tmp_path_factory):
    """A network at random bits after some steps of training, and its file's graph."""
    network = small(widths=(8, 16), bits=BITS, seed=request.param)
    with torch.no_grad():
        network.head.gain.mul_(1 if request.param % 2 else -1)
    retrain(
        network, random_assignment(network, request.param), images(96), Recipe(epochs=4, batch=16), seed=request.param
    )
    network.eval()
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export(network, path)
    return network, load(path), path


def test_weights_are_exactly_the_quantized_ones(exported):
    network, graph, _ = exported
    found = {n.name: n.weight for n in graph.nodes if isinstance(n, (Conv, Dense))}
    layers = {layer.name: layer for layer in network.layers()}
    assert set(found) == set(layers)
    for name, layer in layers.items():
        bits, quantizer = layer.choice.bits, layer.choice.quantizer
        gain = getattr(layer, "gain", torch.ones(())).item()
        assert found[name].grid == quantizer.grid(bits), name
        np.testing.assert_array_equal(
            np.sign(gain) * found[name].q, quantizer.grid(bits).value(quantizer.codes(layer.weight, bits).numpy())
        )
        np.testing.assert_allclose(found[name].scale, abs(gain) * quantizer.scale(bits), rtol=1e-6)


def test_codes_are_the_same_layer_by_layer(exported):
    network, graph, _ = exported
    fused = apply_all(graph, TO_LAYERS)
    differing = total = 0
    met = set()
    for pixels in images(12, seed=7).pixels.float() / 255:
        recorder = Recorder()
        with torch.no_grad():
            network.flow(pixels[None], recorder)
        tensors = model_inputs(fused, {"image": pixels.numpy()})
        for node in fused.nodes:
            for name, value in run_node(node, fused, tensors).items():
                known = recorder.found.get(name.removesuffix(".map"))
                if known is None:
                    tensors[name] = value
                    continue
                met.add(name.removesuffix(".map"))
                known = known.reshape(value.shape).astype(value.dtype)
                if fused.types[name].quantizer:
                    steps = np.abs(known - value) // fused.types[name].grid.step
                    assert steps.max() <= 1, f"{name}: off by {steps.max()} steps"
                    differing, total = differing + np.count_nonzero(steps), total + steps.size
                else:
                    np.testing.assert_allclose(value, known, rtol=1e-4, atol=1e-4)
                tensors[name] = known  # the next layer reads the forward's own
    assert met >= {*network.tensors, "logits", "stem.out"}
    assert differing <= 1e-4 * total and total > 10000


def test_the_whole_network_answers_the_same(exported):
    network, graph, _ = exported
    fused = apply_all(graph, TO_LAYERS)
    pixels = images(24, seed=9).pixels.float() / 255
    with torch.no_grad():
        expected = network(pixels).numpy()
    found = np.stack([run(fused, {"image": x.numpy()})["logits"].reshape(-1) for x in pixels])
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert np.median(np.abs(found - expected)) < 1e-4


def test_qonnx_itself_gives_the_same(exported):
    """The file by QONNX's own executor."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    network, _, path = exported
    model = ModelWrapper(onnx.load(path)).transform(InferShapes())
    pixels = images(3, seed=11).pixels.float() / 255
    with torch.no_grad():
        expected = network(pixels).numpy()
    for x, y in zip(pixels.numpy(), expected, strict=True):
        np.testing.assert_allclose(execute_onnx(model, {"image": x[None]})["logits"][0], y, rtol=1e-3, atol=1e-3)


def test_a_float_network_is_plain_onnx(tmp_path):
    from onnx.reference import ReferenceEvaluator

    network = small().eval()
    network.assign(None)
    export(network, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert not [n for n in model.graph.node if n.domain]
    pixels = images(1).pixels.float() / 255
    found = ReferenceEvaluator(model).run(None, {"image": pixels.numpy()})[0]
    np.testing.assert_allclose(found, network(pixels).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_mixture_cannot_be_exported(tmp_path):
    network = small()
    EBS(network).mix(network, 0.0, torch.Generator(), learn=False)
    with pytest.raises(ModelError, match="mixture"):
        export(network, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
