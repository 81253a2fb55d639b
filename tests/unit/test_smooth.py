"""Smooth functions by their exact definitions: near the real function everywhere, and each operation rounded by itself."""

import numpy as np
import pytest
from scipy import special

from mpcompile.ir.smooth import FUNCTIONS
from mpcompile.reference.smooth import evaluate

REAL = {
    "exp": (np.exp, (), (-80, 80)),
    "sigmoid": (special.expit, (), (-80, 80)),
    "tanh": (np.tanh, (), (-100, 100)),
    "erf": (special.erf, (), (-100, 100)),
    "softplus": (lambda x: np.logaddexp(0, x), (), (-80, 1e4)),
    "silu": (lambda x: x * special.expit(1.7 * x), (1.7,), (-40, 1e4)),
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), (), (-80, 1e4)),
    "gelu": (lambda x: x / 2 * (1 + special.erf(x / np.sqrt(2))), (), (-100, 1e4)),
    "gelu_tanh": (
        lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        (),
        (-100, 1e4),
    ),
    "elu": (
        lambda x: 1.25 * np.where(x >= 0, x, 0.75 * np.expm1(np.minimum(x, 0) / 0.5)),
        (0.75, 1.25, 0.5),
        (-80, 1e4),
    ),
    "softsign": (lambda x: x / (1 + np.abs(x)), (), (-1e6, 1e6)),
}


def test_each_function_has_a_case():
    assert set(REAL) == set(FUNCTIONS)


@pytest.mark.parametrize("name", REAL)
def test_it_is_the_function(name):
    real, parameters, (low, high) = REAL[name]
    near = np.linspace(max(low, -12), min(high, 12), 200_001)
    x = np.concatenate(
        [near, np.linspace(low, high, 50_001), np.geomspace(1e-30, 1, 999), -np.geomspace(1e-30, 1, 999)]
    )
    x = x.astype(np.float32)
    x = x[(x >= low) & (x <= high)]
    y, wanted = evaluate(name, x, parameters), real(x.astype(np.float64))
    assert y.dtype == np.float32
    apart = np.abs(y - wanted) / np.maximum(1, np.abs(wanted))
    assert apart.max() < 4e-7, (name, x[apart.argmax()], apart.max())


@pytest.mark.parametrize("name", REAL)
def test_ends_are_finite(name):
    _, parameters, _ = REAL[name]
    ends = np.array([-3e38, -1e20, -90, 90, 1e20, 3e38], np.float32)
    y = evaluate(name, ends, parameters)
    assert not np.isnan(y).any() and (np.isfinite(y).all() or name in ("softplus", "elu"))


def test_an_erf_is_odd_and_a_sigmoid_of_0_is_a_half():
    x = np.linspace(-5, 5, 999).astype(np.float32)
    assert (evaluate("erf", -x) == -evaluate("erf", x)).all()
    assert evaluate("sigmoid", np.zeros(1, np.float32)) == 0.5 and evaluate("exp", np.zeros(1, np.float32)) == 1
