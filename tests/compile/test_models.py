"""Every model of tests/data compiled for this CPU: every buffer equals the reference, layers outside executors."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.frontend import load
from mpcompile.ir import formats
from mpcompile.ir.layer import Layer
from mpcompile.reference.interpret import codes, interpret
from mpcompile.runtime.bundle import open_bundle
from mpcompile.targets import cpu
from tests.compile.plans import check_plan
from tests.frontend.outside_executors import outside

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(p.stem for p in DATA.glob("*.onnx"))
FUSE = [p.name for p in TO_LAYERS].index("fuse_layers")
SAMPLES = 2
END_TO_END = ["brevitas_cnn_w2a2", "brevitas_residual_w3a4", "brevitas_keywords_qcdq"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """stem → the bundle's path, compiled once."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def bundle(stem: str) -> Path:
        if stem not in made:
            made[stem] = compile_model(DATA / f"{stem}.onnx", output=folder / f"{stem}.mpc")
        return made[stem]

    return bundle


@pytest.mark.parametrize("stem", FILES)
def test_every_buffer_equals_the_reference(stem, bundles):
    x = np.load(DATA / f"{stem}.npz")["x"]
    report = verify(DATA / f"{stem}.onnx", bundles(stem), x, threads=1)
    assert report.equal, report.summary
    assert len(report.rows) >= 3 and report.samples == len(x)


@pytest.mark.parametrize("stem", FILES)
def test_each_kernel_on_the_codes_of_an_outside_executor(stem, bundles):
    """Each kernel fed with the executor's tensors: at least 99.99 % of its codes equal, none off by more than a
    step."""
    path = DATA / f"{stem}.onnx"
    source = load(path)
    rewritten = apply_all(source, TO_LAYERS[:FUSE])
    graph = apply_all(rewritten, TO_LAYERS[FUSE:])
    equal, total, seen = 0, 0, set()
    with open_bundle(bundles(stem), 1) as bundle:
        for x in np.load(path.with_suffix(".npz"))["x"][:SAMPLES]:
            theirs = outside(path, x)
            given = {t: theirs[t] for n in source.nodes for t in n.outputs if source.types[t].quantizer and t in theirs}
            still = {t: v for t, v in given.items() if t in rewritten.types}
            values = interpret(rewritten, {source.inputs[0]: x}, given=still)
            written = [t for n in graph.nodes for t in n.outputs]
            wanted = {t: _stored(graph, t, values) for t in written if _real(t, values) in values}
            for tensor, got in _kernel_by_kernel(bundle, x, wanted):
                quantizer = graph.types[tensor].quantizer
                if quantizer and _real(tensor, given) in given:
                    steps = np.abs(got - wanted[tensor].reshape(got.shape)) // quantizer.grid.step
                    assert steps.max() <= 1, f"{tensor}: {steps.max()} steps off"
                    equal, total = equal + int((steps == 0).sum()), total + steps.size
                    seen.add(tensor)
                elif not quantizer:
                    expected = wanted[tensor].reshape(got.shape)
                    largest = np.abs(expected).max()
                    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * largest, err_msg=tensor)
    assert total and equal >= 0.9999 * total
    quantized = {t for n in graph.nodes for t in n.outputs if isinstance(n, Layer) and graph.types[t].quantizer}
    assert len(seen) >= 0.6 * len(quantized)  # passes make tensors of their own; most are still the file's


@pytest.mark.parametrize("stem", END_TO_END)
def test_the_same_class_on_99_of_100_inputs(stem, bundles):
    path = DATA / f"{stem}.onnx"
    known = np.load(path.with_suffix(".npz"))["x"]
    rng = np.random.default_rng(1)
    inputs = (rng.standard_normal((100, *known.shape[1:])) * known.std() + known.mean()).astype(np.float32)
    output = load(path).outputs[0]
    with open_bundle(bundles(stem), 1) as bundle:
        mine = bundle.run(inputs).reshape(len(inputs), -1)
    theirs = np.stack([outside(path, x)[output].reshape(-1) for x in inputs])
    apart = np.abs(mine - theirs).max(1)
    same = int((mine.argmax(1) == theirs.argmax(1)).sum())
    print(f"{stem}: top-1 equal on {same} of 100; {int((apart > 1e-4).sum())} differ, by {apart.max():.3g} at most")
    assert same >= 99


@pytest.mark.parametrize("stem", FILES)
def test_nothing_alive_is_overwritten(stem, bundles):
    with open_bundle(bundles(stem), 1) as bundle:
        check_plan(bundle.plan)


@pytest.mark.skipif(len(cpu.allowed()) < 2, reason="this process may use one CPU")
@pytest.mark.parametrize("stem", ["brevitas_cnn_w1a1", "brevitas_residual_w3a4"])
def test_two_threads_give_the_same_bits(stem, bundles):
    x = np.load(DATA / f"{stem}.npz")["x"]
    results = []
    for threads in (1, 2):
        with open_bundle(bundles(stem), threads) as bundle:
            results.append(bundle.run(x))
    np.testing.assert_array_equal(*results)


def _real(tensor: str, known) -> str:
    """The name under which a tensor's real values are known; fuse_layers may append ".codes"."""
    return tensor if tensor in known else tensor.removesuffix(".codes")


def _stored(graph, tensor: str, values) -> np.ndarray:
    """What the fused graph's tensor holds: values q where it is quantized."""
    quantizer, value = graph.types[tensor].quantizer, values[_real(tensor, values)]
    return codes(value, quantizer) if quantizer else np.asarray(value, np.float32)


def _kernel_by_kernel(bundle, x, wanted):
    """(tensor, what its kernel made of the executor's tensors) for every stored tensor that the executor knows."""
    executor, plan = bundle._executor, bundle.plan
    executor.fill([x])
    for i in range(len(plan.calls)):
        for placed in plan.buffers:
            if 0 <= placed.written < i <= placed.last_read and placed.buffer.tensor in wanted:
                value = wanted[placed.buffer.tensor].reshape(placed.buffer.shape)
                executor.memory.put(executor.view(placed.arg), formats.encode(value, placed.buffer))
        executor.timer([i]).seconds(1)
        for placed in plan.buffers:
            if placed.written == i and placed.buffer.format != "sums" and placed.buffer.tensor in wanted:
                yield (
                    placed.buffer.tensor,
                    formats.decode(executor.memory.get(executor.view(placed.arg)), placed.buffer),
                )
