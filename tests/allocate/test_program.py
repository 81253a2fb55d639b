"""Budgets: the sum over choices is the table's prediction, and the integer program finds what trying all choices finds."""

from itertools import product

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.allocate import costs
from mpcompile.allocate.program import Limit, choose, loss_of
from mpcompile.allocate.wiring import Sensitivity
from mpcompile.api.modelled_workbench import modelled_table
from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.ptq import kept
from mpcompile.ptq.budgets import parse_budget, parse_mean
from mpcompile.ptq.places import Layer, Places
from mpcompile.ptq.rewire import quantized_name
from mpcompile.targets import load_target
from tests.latency.simulated import Simulated
from tests.ptq.nets import export, made, samples

BITS = BitCandidates((2, 4, 8), (2, 4, 8))


def places(**layers: tuple[str, ...]) -> Places:
    """Layers by the tensors that they read; each has as many weights as its place, and ten MACs for each."""
    found = {k: Layer(k, "Conv", f"{k}.w", 0, t, i + 1, 10 * (i + 1)) for i, (k, t) in enumerate(layers.items())}
    return Places(found, (), frozenset(), frozenset(), {})


def assignments(found: Places, choices):
    """All that are possible: readers of tied tensors have the same bits of them."""
    for pairs in product(*choices.values()):
        made = dict(zip(choices, pairs))
        if all(len({made[k].activations for t in tensors for k in found.readers(t)}) == 1 for tensors in found.tied()):
            yield made


def random_sensitivity(found: Places, choices, rng) -> Sensitivity:
    """Falls with the bits, as a rule."""

    def losses(bits):
        return {b: float(rng.gamma(2.0) * 4.0**-b) for b in sorted(bits)}

    return Sensitivity(
        {k: losses({p.weights for p in pairs}) for k, pairs in choices.items()},
        {t: losses({p.activations for k in found.readers(t) for p in choices[k]}) for t in found.tensors},
    )


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    found = places(a=("x",), b=("y",), c=("y",), d=("y", "z"))
    choices = kept.choices(found, {"a": BitPair(8, 8)}, [BitPair(w, a) for w in (2, 4, 8) for a in (3, 8)])
    judged = random_sensitivity(found, choices, rng)
    by_bitops, by_size = costs.bitops(found, choices), costs.weight_bytes(found, choices, 3)
    by_size.packs = {t: {(a, f): float(rng.random()) for a in (3, 8) for f in costs.FORMATS} for t in ("y", "z")}
    by_size.form = {k: {p: str(rng.choice(["planes", "codes"])) for p in pairs} for k, pairs in choices.items()}
    every = list(assignments(found, choices))
    amounts = [np.quantile([c.of(e, found) for e in every], 0.4) for c in (by_bitops, by_size)]
    limits = [Limit(c, a, "so much") for c, a in zip((by_bitops, by_size), amounts)]
    fitting = [e for e in every if all(m.costs.of(e, found) <= m.amount for m in limits)]
    assert 0 < len(fitting) < len(every)
    got = choose(found, choices, judged, limits)
    assert got in fitting
    assert loss_of(judged, found, got) == pytest.approx(min(loss_of(judged, found, e) for e in fitting), rel=1e-5)


def test_too_little_is_said():
    found = places(a=("x",), b=("y",))
    choices = kept.choices(found, {}, [BitPair(2, 2), BitPair(8, 8)])
    judged = random_sensitivity(found, choices, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"no choice of bits takes 5 B or less: the least takes 0.0 KiB"):
        choose(found, choices, judged, [Limit(costs.weight_bytes(found, choices, 5), 5.0, "5 B")])


@pytest.mark.parametrize("name", ["residual", "branches", "mobile"])
@pytest.mark.parametrize("device", ["formula", "rpi4b"])
def test_the_sum_is_the_tables_prediction(tmp_path, name, device):
    source = export(made(name), tmp_path / "float.onnx")
    path = mp.quantize(source, samples(name), tmp_path / "q.onnx", bits="w8a8").path
    if device == "formula":
        table = build_table(mp.load(path), BITS, Simulated(), Cache(tmp_path / "cells"))
    else:
        table = modelled_table(path, load_target(device), BITS)
        assert "not measured" in table.measured_on["modelled"]
    from mpcompile.ptq.float_model import read_float
    from mpcompile.ptq.supported import supported_places

    found, _ = supported_places(read_float(source), {})
    choices = kept.choices(found, {}, list(BITS))
    cost = costs.latency(found, choices, table, {t: quantized_name(t) for t in found.tensors})
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        tensors = {t: int(rng.choice((2, 4, 8))) for tied in found.tied() for t in [tied[0]]}
        of = {t: tensors[tied[0]] for tied in found.tied() for t in tied}
        drawn = {
            k: pairs[0] if len(pairs) == 1 else BitPair(int(rng.choice((2, 4, 8))), of[layer.tensors[0]])
            for (k, layer), pairs in zip(found.layers.items(), choices.values())
        }
        drawn |= {k: BitPair(p.weights, 8) for k, p in drawn.items() if {c.activations for c in choices[k]} == {8}}
        assert cost.of(drawn, found) == pytest.approx(table.predict(drawn), rel=1e-9)
        seen.add(table.predict(drawn))
    assert len(seen) > 3


def test_a_table_of_another_network_is_refused(tmp_path):
    source = export(made("residual"), tmp_path / "float.onnx")
    other = export(made("branches"), tmp_path / "other.onnx")
    path = mp.quantize(other, samples("branches"), tmp_path / "q.onnx", bits="w8a8").path
    modelled_table(path, load_target("rpi4b"), BITS).save(tmp_path / "lut.json")
    how = dict(latency="w4a4", table=tmp_path / "lut.json")
    with pytest.raises(UsageError, match="has no layer .*: it was measured on another network"):
        mp.quantize(source, samples("residual"), tmp_path / "r.onnx", **how)
    (tmp_path / "lut.json").write_text("{}")
    with pytest.raises(ModelError, match="is no latency table"):
        mp.quantize(source, samples("residual"), tmp_path / "r.onnx", **how)
    assert not (tmp_path / "r.onnx").exists()


@pytest.mark.parametrize(
    "kind, text, amount",
    [
        ("latency", "12 ms", 0.012),
        ("latency", "250us", 250e-6),
        ("size", "800 KiB", 800 * 1024),
        ("size", "1.5 MB", 1.5e6),
        ("bitops", "2 GBitOps", 2e9),
    ],
)
def test_budgets(kind, text, amount):
    assert parse_budget(kind, text).amount == pytest.approx(amount)
    assert parse_budget(kind, "w4a8").bits == (4, 8)


@pytest.mark.parametrize(
    "kind, text", [("latency", "12"), ("latency", "5 KiB"), ("size", "many MB"), ("bitops", "0 GBitOps")]
)
def test_what_is_no_budget(kind, text):
    with pytest.raises(UsageError, match=kind):
        parse_budget(kind, text)
    with pytest.raises(UsageError, match="from 1 to 8"):
        parse_mean("9")


def test_a_mean_is_of_bitops():
    found = places(a=("x",), b=("y",))
    cost = costs.bitops(found, {"a": (BitPair(2, 8),), "b": (BitPair(4, 4),)})
    assert cost.of({"a": BitPair(2, 8), "b": BitPair(4, 4)}, found) == (10 + 20) * 16
    assert parse_mean(4).amount == 4
