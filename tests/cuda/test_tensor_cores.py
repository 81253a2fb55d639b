"""Products of matrices of bits on tensor cores, emulated: bits, borders, sizes that fill no tile; no spilled register."""

import numpy as np
import pytest

from mpcompile.compiler.cuda.backend import source_of
from mpcompile.compiler.cuda.nvrtc import cubin
from mpcompile.compiler.cuda.usage import usage_of
from mpcompile.ir import grid as grids
from mpcompile.ir.graph import Quantizer, TensorType
from mpcompile.ir.layer import ContractPart, ContractTerm, Fma, Layer, Load, Output, Round
from mpcompile.kernels.families.popcount import PopcountRowsSpec
from mpcompile.targets import load_target
from tests.kernels.harness import check, stored

LEVELS = grids.unsigned(2)


def convolution(bits, channels, outputs, size, kernel=3, stride=1, target="orin"):
    """A layer of W`bits[0]`A`bits[1]`, checked."""
    rng, pad = np.random.default_rng(1), kernel // 2
    weights = grids.bipolar() if bits[0] == 1 else grids.twos_complement(bits[0])
    inputs = grids.unsigned(bits[1])
    q = weights.value(rng.integers(0, weights.levels, (outputs, channels, kernel, kernel)))
    made = tuple((n + 2 * pad - kernel) // stride + 1 for n in size)
    steps = [
        Load(0),
        Fma(0, rng.normal(0, 0.05, outputs).astype(np.float32), rng.normal(0, 1, outputs).astype(np.float32)),
        Round(1, "half_even", 0, 3),
    ]
    part = ContractPart("a", q, weights, (stride, stride), (pad,) * 4)
    layer = Layer(
        "l", ["a"], ["y"], (outputs, *made), [ContractTerm([part])], steps, [Output("y", 2, Quantizer(LEVELS, 0.5))]
    )
    types = {
        "a": TensorType((channels, *size), Quantizer(inputs, 1.0)),
        "y": TensorType((outputs, *made), Quantizer(LEVELS, 0.5)),
    }
    return check(
        layer,
        types,
        {"a": rng.integers(0, inputs.levels, (channels, *size))},
        {(0, 0): "popcount"},
        target,
        {"a": stored("a", (channels, *size), inputs, ("planes+sums",), (pad,) * 4)},
        {"y": stored("y", (outputs, *made), LEVELS, ("planes",), (1, 1, 1, 1))},
    )


@pytest.mark.parametrize("weights", [1, 2, 3, 4])
@pytest.mark.parametrize("activations", [1, 2, 3, 4])
def test_bits(weights, activations):
    lowered = convolution((weights, activations), 64, 48, (5, 6))
    assert isinstance(lowered.spec.parts[0], PopcountRowsSpec)


@pytest.mark.parametrize(
    "channels, outputs, size, kernel, stride",
    [(64, 64, (8, 8), 3, 1), (70, 33, (7, 5), 3, 2), (512, 100, (1, 1), 1, 1), (256, 20, (9, 3), 1, 2)],
    ids=str,
)
def test_shapes(channels, outputs, size, kernel, stride):
    lowered = convolution((2, 1), channels, outputs, size, kernel, stride)
    assert isinstance(lowered.spec.parts[0], PopcountRowsSpec)


def test_what_has_no_whole_step_is_counted_by_threads():
    assert not isinstance(convolution((1, 3), 96, 48, (7, 7), 1).spec.parts[0], PopcountRowsSpec)


@pytest.mark.parametrize("target", ["nano", "xavier"])
def test_devices_without_tensor_cores_of_bits_count_by_threads(target):
    lowered = convolution((2, 2), 64, 16, (4, 4), target=target)
    assert not isinstance(lowered.spec.parts[0], PopcountRowsSpec)


@pytest.mark.parametrize("bits", [(1, 1), (2, 2)])
def test_no_register_is_spilled(bits):
    """By the cubins, of every board that has such tensor cores."""
    lowered = convolution(bits, 64, 64, (8, 8))
    text = source_of({"layer": lowered.func}, load_target("orin")).text
    for arch in ("sm_80", "sm_87", "sm_90"):
        found = usage_of(cubin(text, arch))
        assert len(found) >= 3, "a halo, a product, an epilogue"
        for kernel, usage in found.items():
            assert usage.frame == 0 and 0 < usage.registers <= 128 and usage.code > 0, (arch, kernel, usage)
        assert max(usage.shared for usage in found.values()) >= 64 * 64 * 4, "the product is in shared memory"
