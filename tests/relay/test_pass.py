"""BitSerialize over Relay modules: what it takes, what it leaves, by every executor."""

import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tvm
from tvm import relay

from mpcompile.errors import MissingDependency, MpError, TargetError, UsageError
from mpcompile.relay import BitSerialize, int_quant
from tests.relay.modules import conv, integers, quantized, run


def module(body, *shapes):
    """body(rng, *inputs) → an expression."""
    inputs = [relay.var(f"x{i}", shape=shape) for i, shape in enumerate(shapes)]
    made = relay.Function(inputs, body(np.random.default_rng(0), *inputs))
    return relay.transform.InferType()(tvm.IRModule.from_expr(made))


SIXTEENTH = relay.const(np.float32(1 / 16))
"""Added to multiples of an eighth it leaves no ties for the quantizer that follows: Relay's own takes them away from 0,
ours to even, as ONNX says."""


def layer(rng, x):
    x = conv(rng, quantized(x), 4, 8)
    return conv(rng, quantized(relay.nn.relu(relay.add(x, SIXTEENTH))), 8, 6)


def operators(mod):
    """Names of the operators that main still has."""
    found = []
    relay.analysis.post_order_visit(
        mod["main"].body, lambda e: found.append(e.op) if isinstance(e, relay.Call) else None
    )
    return [op.name if isinstance(op, tvm.ir.Op) else "@" + op.name_hint for op in found]


@pytest.fixture(scope="module")
def network():
    """(a module of batch 2, the same rewritten, what was said)"""
    mod, said = module(layer, (2, 4, 6, 6)), []
    return mod, BitSerialize(say=said.append)(mod), said


def test_the_printed_module_shows_the_operators(network):
    mod, new, said = network
    (region,) = operators(new)
    assert region.startswith("@mpcompile_main_0_")
    text = str(new)
    assert text.count("mpcompile.bitserial_conv2d(") == 2 and '"weights"="2 bits -2..1"' in text and '"family"' in text
    assert "Tensor[(2, 8, 6, 6), uint2]" in text  # what the first writes
    assert any("bitserial_conv2d" in line for line in said)
    assert "qnn.quantize" in str(mod)  # what was given is as it was


@pytest.mark.parametrize("executor", ["graph", "aot", "vm"])
def test_results_are_those_of_relay_itself(network, executor):
    mod, new, _ = network
    x = integers((2, 4, 6, 6))
    np.testing.assert_array_equal(run(new, x, executor=executor)[0], run(mod, x)[0])


def test_it_is_saved_and_loaded_and_built_by_another_process(network, tmp_path):
    """The module alone says everything: another process compiles it to the same numbers."""
    mod, new, _ = network
    assert tvm.ir.structural_equal(tvm.ir.load_json(tvm.ir.save_json(new)), new)
    (tmp_path / "module.json").write_text(tvm.ir.save_json(new))
    np.save(tmp_path / "x.npy", integers((2, 4, 6, 6)))
    code = (
        "import sys, numpy as np, tvm, mpcompile.relay\n"
        "from tests.relay.modules import run\n"
        "mod = tvm.ir.load_json(open(sys.argv[1] + '/module.json').read())\n"
        "np.save(sys.argv[1] + '/y.npy', run(mod, np.load(sys.argv[1] + '/x.npy'))[0])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), run(mod, integers((2, 4, 6, 6)))[0])


def test_what_is_in_float_stays():
    def body(rng, x):
        first = relay.nn.conv2d(
            x, relay.const(rng.integers(-2, 3, (4, 3, 1, 1)).astype(np.float32)), channels=4, kernel_size=(1, 1)
        )
        left = layer(rng, first)
        return relay.Tuple([relay.nn.softmax(relay.nn.batch_flatten(left)), relay.cumsum(left, axis=2)])

    said = []
    mod = module(body, (1, 3, 6, 6))
    new = BitSerialize(explain=True, say=said.append)(mod)
    region, *left = sorted(operators(new))
    assert region.startswith("@mpcompile_main_0_") and left == ["cumsum", "nn.conv2d", "nn.softmax"]
    assert any("(nn.conv2d) stays: its weights are not quantized" in line for line in said)
    x = integers((1, 3, 6, 6))
    for mine, theirs in zip(run(new, x), run(mod, x), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_several_regions_and_results():
    def body(rng, x, y):
        shared = quantized(x)
        left = relay.add(conv(rng, shared, 4, 4), quantized(y))
        middle = relay.add(relay.cumsum(left, axis=2), SIXTEENTH)
        return relay.Tuple([left, conv(rng, quantized(middle), 4, 5), relay.nn.max_pool2d(conv(rng, shared, 4, 4))])

    mod = module(body, (1, 4, 6, 6), (1, 4, 6, 6))
    new = BitSerialize(say=None)(mod)
    assert operators(new).count("cumsum") == 1 and len([o for o in operators(new) if o[0] == "@"]) == 2
    xs = integers((1, 4, 6, 6)), integers((1, 4, 6, 6), seed=2)
    for mine, theirs in zip(run(new, *xs), run(mod, *xs), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_our_operator_runs_in_float_without_the_pass():
    """Roundings, half-integer zero points, one signed bit: Relay's float form equals the region."""
    base = {"signed": 1, "narrow": 0, "out_bits": 0, "out_scale": 0.0, "kind": "int", "bits": 3}
    modes = ["half_up", "half_down", "up", "floor"]

    def body(rng, x):
        kernel = relay.const((rng.integers(-9, 9, (5, 4, 1, 1)) / 8).astype(np.float32))
        weights = int_quant(
            kernel, relay.const(np.float32(0.25)), relay.const(np.float32(0)), base | {"rounding": "round"}
        )
        given = [(m, 0.5) for m in modes] + [("round", 0.0)]
        return relay.Tuple(
            [
                relay.nn.conv2d(
                    int_quant(
                        x, relay.const(np.float32(0.5)), relay.const(np.float32(zero)), base | {"rounding": mode}
                    ),
                    weights,
                    channels=5,
                    kernel_size=(1, 1),
                )
                for mode, zero in given
            ]
        )

    mod = module(body, (1, 4, 5, 5))
    x = (np.random.default_rng(3).integers(-32, 33, (1, 4, 5, 5)) / 8).astype(np.float32)
    new = BitSerialize(say=None)(mod)
    assert {o[0] for o in operators(new)} == {"@"}
    for mine, theirs in zip(run(new, x), run(relay.qnn.transform.CanonicalizeOps()(mod), x), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_is_wrong_is_one_line(monkeypatch, tmp_path):
    """And leaves nothing behind: neither in the module nor in the folder for temporary files."""
    mod = module(layer, (1, 4, 6, 6))
    before = str(mod)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def wrong(error, words, given=mod, **options):
        with pytest.raises(error) as raised:
            BitSerialize(**options, say=None)(given)
        assert words in str(raised.value) and "\n" not in str(raised.value)

    wrong(UsageError, "takes a module of Relay (tvm.IRModule), not a tuple", given=(mod, {}))
    wrong(TargetError, "no_such_board", target="no_such_board")
    wrong(TargetError, "x86-64", target="x86-64")  # a fleet
    wrong(UsageError, "there is no folder of records /no/such", records="/no/such")
    with monkeypatch.context() as other:
        other.setenv("PATH", "/no/such")
        other.delenv("CC", raising=False)
        wrong(MpError, "gcc", target="x86-64-v2")
    monkeypatch.setenv("MPCOMPILE_PYTHON", "/no/such/python")
    wrong(MissingDependency, "/no/such/python: set MPCOMPILE_PYTHON", target="x86-64-v3")
    assert str(mod) == before and not list(tmp_path.iterdir())
