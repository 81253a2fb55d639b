"""BitSerialize over Relax modules: what it takes, what it leaves, and that numbers stay what TVM itself computes."""

import tempfile

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax

from mpcompile.errors import MpError, TargetError, UsageError
from mpcompile.relax import BitSerialize, int_quant
from tests.relax.modules import Maker, calls_of, const, op, run


def integers(shape, seed=1):
    """Float inputs between -4 and 4, multiples of an eighth: their sums are exact, and halves are among them."""
    return (np.random.default_rng(seed).integers(-32, 33, shape) / 8).astype(np.float32)


def layer(m, x):
    """Quantizer, convolution, ReLU, quantizer, convolution."""
    x = m.conv(m.quantized(x), 4, 8)
    return m.conv(m.quantized(m.emit(op.nn.relu(x))), 8, 6)


def same_as_tvm(mod, *inputs, **options):
    """The rewritten module, whose results are those of TVM's own operators, bit for bit."""
    said = []
    new = BitSerialize(say=said.append, **options)(mod)
    for mine, theirs in zip(run(new, *inputs), run(mod, *inputs), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    return new, said


def test_a_network_is_one_call():
    mod = Maker((1, 4, 6, 6)).module(layer)
    before = mod.script()
    new, said = same_as_tvm(mod, integers((1, 4, 6, 6)))
    assert calls_of(new) == ["relax.call_dps_packed"]
    assert mod.script() == before
    assert said[0].startswith("main: ") and "mpcompile_main_0" in said[0]
    assert any("bitserial_conv2d" in line and "weights 2 bits -2..1" in line and "family" in line for line in said)


def test_what_is_in_float_stays():
    """A float convolution in front and a softmax behind: TVM's; the quantized ones between them are ours."""

    def body(m, x):
        first = m.emit(op.nn.conv2d(x, const(m.rng.integers(-2, 3, (4, 3, 1, 1)))))
        flat = m.emit(op.reshape(layer(m, first), (1, 6 * 36)))
        return m.emit(op.nn.softmax(flat))

    said = []
    mod = Maker((1, 3, 6, 6)).module(body)
    new = BitSerialize(explain=True, say=said.append)(mod)
    assert calls_of(new) == ["relax.nn.conv2d", "relax.call_dps_packed", "relax.nn.softmax"]
    assert any("(nn.conv2d) stays: its weights are not quantized" in line for line in said)
    assert any("(nn.softmax) stays" in line for line in said)
    x = integers((1, 3, 6, 6))
    np.testing.assert_array_equal(run(new, x)[0], run(mod, x)[0])


def test_a_region_that_is_interrupted_is_two():
    """A way from one quantized part to another through an operator of TVM's must not become a circle."""

    def body(m, x):
        first = m.emit(op.nn.relu(m.conv(m.quantized(x), 4, 4)))
        other = m.emit(op.cumsum(first, axis=2))
        return m.conv(m.quantized(m.emit(op.add(first, other))), 4, 4)

    new, said = same_as_tvm(Maker((1, 4, 4, 4)).module(body), integers((1, 4, 4, 4)))
    assert calls_of(new) == ["relax.call_dps_packed", "relax.cumsum", "relax.call_dps_packed"]
    assert sum(" operators are " in line for line in said) == 2


def test_several_inputs_outputs_and_consumers():
    def body(m, x, y):
        shared = m.quantized(x)
        left = m.emit(op.add(m.conv(shared, 4, 4), m.quantized(y)))
        right = m.emit(op.nn.max_pool2d(m.conv(shared, 4, 4), (2, 2), strides=(2, 2)))
        return [left, m.conv(m.quantized(left), 4, 5), right]

    new, _ = same_as_tvm(
        Maker((1, 4, 6, 6), (1, 4, 6, 6)).module(body), integers((1, 4, 6, 6)), integers((1, 4, 6, 6), seed=2)
    )
    assert calls_of(new).count("relax.call_dps_packed") == 1


def test_batches():
    same_as_tvm(Maker((3, 4, 6, 6)).module(layer), integers((3, 4, 6, 6)))


def test_a_batch_that_is_known_when_it_runs():
    n = tvm.tirx.Var("n", "int64")
    new, _ = same_as_tvm(Maker((n, 4, 6, 6)).module(layer), integers((2, 4, 6, 6)))
    assert calls_of(new) == ["relax.call_dps_packed"]
    x = integers((5, 4, 6, 6))
    assert run(new, x)[0].shape == (5, 6, 6, 6)


def test_channels_last():
    def body(m, x):
        codes = m.emit(op.quantize(x, const(0.5), const(0, "uint8"), axis=3, out_dtype="uint8"))
        x = m.emit(op.dequantize(codes, const(0.5), const(0, "uint8"), axis=3))
        weight = m.emit(op.permute_dims(m.weight((5, 4, 3, 3)), (2, 3, 1, 0)))
        made = op.nn.conv2d(x, weight, padding=(1, 1), data_layout="NHWC", kernel_layout="HWIO")
        return m.emit(op.nn.relu(m.emit(made)))

    new, _ = same_as_tvm(Maker((1, 6, 6, 4)).module(body), integers((1, 6, 6, 4)))
    assert calls_of(new) == ["relax.call_dps_packed"]


def test_fake_quantization_in_float():
    """As exporters of PyTorch leave it, of activations and of weights; without and with a zero point."""

    def fake(m, x, scale, low, high, zero=0.0):
        x = m.emit(op.round(m.emit(op.divide(x, const(scale)))))
        if zero:
            x = m.emit(op.clip(m.emit(op.add(x, const(zero))), low, high))
            return m.emit(op.multiply(m.emit(op.subtract(x, const(zero))), const(scale)))
        return m.emit(op.multiply(m.emit(op.clip(x, low, high)), const(scale)))

    def body(m, x):
        weight = fake(m, const(m.rng.integers(-9, 9, (6, 4, 3, 3)) / 8), np.full((6, 1, 1, 1), 0.25), -2, 1)
        x = m.emit(op.nn.conv2d(fake(m, x, 0.5, 0, 7, 3.0), weight, padding=(1, 1)))
        weight = fake(m, const(m.rng.integers(-9, 9, (5, 6, 1, 1)) / 8), 0.25, -1, 1)
        return m.emit(op.nn.conv2d(fake(m, m.emit(op.nn.relu(x)), 1.0, 0, 3), weight))

    new, said = same_as_tvm(Maker((1, 4, 6, 6)).module(body), integers((1, 4, 6, 6)))
    assert calls_of(new) == ["relax.call_dps_packed"]
    assert any("weights 2 bits -2..1, activations 3 bits -3..4" in line for line in said)


def test_parameters_must_be_bound():
    weights = relax.Var("w", relax.TensorType((8, 4, 3, 3), "float32"))
    maker = Maker((1, 4, 6, 6))
    maker.inputs.append(weights)
    said = []
    mod = maker.module(lambda m, x, w: m.emit(op.nn.conv2d(m.quantized(x), w)))
    assert tvm_ffi.structural_equal(BitSerialize(explain=True, say=said.append)(mod), mod)
    assert "main: no quantized region" in said
    assert any("bind the parameters before the pass" in line for line in said)


def test_our_operator_is_saved_and_loaded_and_runs_without_the_pass():
    attrs = {
        "kind": "int",
        "bits": 3,
        "signed": 1,
        "narrow": 0,
        "rounding": "half_even",
        "out_bits": 0,
        "out_scale": 0.0,
    }

    def body(m, x):
        weights = m.emit(int_quant(const(m.rng.integers(-9, 9, (5, 4, 3, 3)) / 8), const(0.25), const(0.0), attrs))
        return m.emit(op.nn.conv2d(m.emit(int_quant(x, const(0.5), const(0.5), attrs)), weights))

    mod = Maker((1, 4, 6, 6)).module(body)
    loaded = tvm.ir.load_json(tvm.ir.save_json(mod))
    assert tvm_ffi.structural_equal(loaded, mod) and "mpcompile.int_quant" in loaded.script()
    new, said = same_as_tvm(loaded, integers((1, 4, 6, 6)))
    assert calls_of(new) == ["relax.call_dps_packed"]
    assert any("3 bits" in line for line in said)


def test_a_tensor_of_another_shape_is_refused():
    new = BitSerialize(say=None)(Maker((1, 4, 6, 6)).module(layer))
    (call,) = [b.value for block in new["main"].body.blocks for b in block.bindings if isinstance(b.value, relax.Call)]
    compiled = tvm.compile(new, target="llvm").jit()
    inputs = [np.zeros((1, 4, 6, 6), np.float32), np.zeros((1, 6, 6, 5), np.float32)]
    with pytest.raises(Exception, match="another shape or type than was compiled for"):
        compiled.get_function(call.args[0].global_symbol, query_imports=True)(*map(tvm.runtime.tensor, inputs))


def test_deep_functions():
    """A thousand operators in a row, none of which is quantized: nothing goes deep, and nothing is taken."""

    def body(m, x):
        for _ in range(1000):
            x = m.emit(op.nn.relu(x))
        return x

    mod = Maker((1, 4, 6, 6)).module(body)
    assert tvm_ffi.structural_equal(BitSerialize(say=None)(mod), mod)


def test_what_is_wrong_is_one_line(monkeypatch, tmp_path):
    """And leaves nothing behind: neither in the module nor in the folder for temporary files."""
    mod = Maker((1, 4, 6, 6)).module(layer)
    before = mod.script()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def wrong(error, words, module=mod, **options):
        with pytest.raises(error) as raised:
            BitSerialize(**options, say=None)(module)
        assert words in str(raised.value) and "\n" not in str(raised.value)

    wrong(UsageError, "takes a module of Relax (tvm.IRModule), not a tuple", module=(mod, {}))
    wrong(TargetError, "no_such_board", target="no_such_board")
    wrong(TargetError, "x86-64", target="x86-64")  # a fleet
    wrong(UsageError, "there is no folder of records /no/such", records="/no/such")
    monkeypatch.setenv("PATH", "/no/such")
    monkeypatch.delenv("CC", raising=False)
    wrong(MpError, "gcc")
    assert mod.script() == before and not list(tmp_path.iterdir())
