"""CONTRIBUTING's recipe for a kernel family, followed once: a record (schoolbook.py) and its loops (schoolbook_loops.py),
both here, are all that a new family takes to be chosen, compiled exactly, tuned and profiled."""

from dataclasses import replace

import numpy as np
import pytest

import mpcompile as mp
from benchmarks.networks import Builder
from mpcompile.api.verify import verify
from mpcompile.cli.graph_rows import graph_rows
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import TargetError, UsageError
from mpcompile.frontend import load
from mpcompile.ir import grid as grids
from mpcompile.kernels.families import families, family, register, unregister
from mpcompile.records.store import family_of, read_records
from mpcompile.runtime import open_bundle
from mpcompile.schedules import inner
from mpcompile.targets import load_target
from tests.families.schoolbook import SCHOOLBOOK, SchoolbookSpec
from tests.families.schoolbook_loops import SchoolbookLoops
from tests.kernels.harness import LEVELS
from tests.kernels.test_contract import convolution, run

NAME = SCHOOLBOOK.name
ARCHITECTURE = "arm" if load_target("native").arch != "x86_64" else "x86"


@pytest.fixture
def schoolbook():
    """Registered while a test runs."""
    register(SCHOOLBOOK)
    inner.register(ARCHITECTURE, SchoolbookSpec, SchoolbookLoops())
    yield SCHOOLBOOK
    inner.unregister(ARCHITECTURE, SchoolbookSpec)
    unregister(NAME)


@pytest.fixture
def cheap(schoolbook, monkeypatch):
    """The same, expected to be the fastest wherever it can compute a part."""
    unregister(NAME)
    register(replace(SCHOOLBOOK, cycles=lambda *of: SCHOOLBOOK.cycles(*of) and 1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two convolutions, the second one with a stride, and a dense layer."""
    b = Builder(0)
    b.values["x"] = np.abs(np.random.default_rng(1).normal(size=(16, 9, 9))).astype(np.float32)
    x = b.relu(b.batch_norm(b.conv(b.activation("x", 3, "q0"), 20, 3, 1, 1, "c0"), "bn0"), "r0")
    x = b.relu(b.batch_norm(b.conv(b.activation(x, 2, "q1"), 32, 3, 2, 1, "c1"), "bn1"), "r1")
    x = b.node("GlobalAveragePool", [x], "mean", b.values[x].mean((1, 2), keepdims=True))
    x = b.activation(b.node("Flatten", [x], "flat", b.values[x].reshape(-1), axis=1), 4, "q2")
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    b.network("x", b.dense(x, 10, 8, "fc")).save(path)
    return path


def families_in(rows) -> set[str]:
    return {part["family"] for row in rows for part in row.get("parts", ())}


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize(
    "shape",
    [
        # channels, height, width, outputs, kernel, stride, pads
        (21, 6, 7, 70, (3, 3), (1, 1), (1, 1, 1, 1)),
        (3, 9, 8, 20, (5, 2), (2, 1), (2, 0, 1, 1)),
        (65, 4, 4, 3, (1, 1), (1, 1), (0, 0, 0, 0)),
    ],
)
def test_it_writes_the_bytes_of_the_reference(schoolbook, target, shape):
    rng = np.random.default_rng(sum(shape[:4]))
    forms = ("codes+sums",) if shape[3] <= 4 else ("planes+sums", "codes+sums")
    for grid_a in (grids.unsigned(3, 1), grids.odd(8)):  # the latter has no 0 to pad with
        case = convolution(rng, *shape, grids.odd(5), grid_a, grids.unsigned(4))
        lowered = run(case, NAME, target, forms)
        assert [type(p) for p in lowered.spec.parts] == [SchoolbookSpec]


def test_it_is_offered_but_not_chosen_while_it_is_dear(schoolbook, model, tmp_path):
    assert [f.name for f in families()][-1] == NAME
    with open_bundle(mp.compile(model, output=tmp_path / "m.mpc")) as bundle:
        assert families_in(bundle.layers) and NAME not in families_in(bundle.layers)


def test_a_network_is_compiled_by_it_where_it_is_wanted(schoolbook, model, tmp_path):
    path = mp.compile(model, output=tmp_path / "m.mpc", families={"*": NAME})
    with open_bundle(path) as bundle:
        assert families_in(bundle.layers) == {NAME}
        images = np.random.default_rng(2).normal(size=(3, 16, 9, 9)).astype(np.float32)
        report = verify(model, bundle, images)
    assert report.equal and report.samples == 3


def test_it_is_chosen_where_it_is_cheap(cheap, model, tmp_path):
    rows = graph_rows(apply_all(load(model), TO_LAYERS), load_target("native"))
    assert families_in(rows) == {NAME}
    with open_bundle(mp.compile(model, output=tmp_path / "m.mpc")) as bundle:
        assert families_in(bundle.layers) == {NAME}


def test_it_is_tuned_and_its_records_are_found(cheap, model, tmp_path):
    pytest.importorskip("xgboost")
    found = mp.tune(model, records=tmp_path / "records", trials=4, threads=1)
    assert found.new >= 4 and not found.failures
    name = family_of(load_target("native"))
    records = read_records(tmp_path / "records" / f"{name}.json", name)
    parts = [part for record in records for part in record.key["parts"]]
    assert {(part["family"], part["step"]) for part in parts} == {(NAME, "int16")}
    path = mp.compile(model, output=tmp_path / "m.mpc", records=tmp_path / "records")
    with open_bundle(path) as bundle:
        sources = {row["tile_source"]["from"] for row in bundle.layers if row.get("parts")}
    assert sources == {"record"}


def test_it_is_profiled_and_is_in_the_latency_table(cheap, model, tmp_path):
    found = mp.profile(model, threads=1, rounds=3)
    assert families_in(found.rows) == {NAME} and all(t.seconds > 0 for t in found.layers.values())
    measured = mp.profile(model, bits="w2a2", cache=tmp_path / "cells", threads=1, rounds=1)
    assert all("codes" in cell for row in measured.layers.values() for of in row.reads.values() for cell in of.values())


def test_the_registry_tells_what_is_wrong(schoolbook):
    with pytest.raises(UsageError, match="^there is a kernel family schoolbook already$"):
        register(SCHOOLBOOK)
    shipped = [f.name for f in families() if f.name != NAME]
    with pytest.raises(UsageError, match=f"^magic is no kernel family: there are {', '.join([*shipped, NAME])}$"):
        family("magic")
    with pytest.raises(UsageError, match=f"^the kernel family {shipped[0]} ships: it cannot be taken out$"):
        unregister(shipped[0])


def test_without_it_nothing_knows_it(model, tmp_path):
    assert NAME not in [f.name for f in families()]
    with pytest.raises(UsageError, match=f"^{NAME} is no kernel family: there are "):
        mp.compile(model, output=tmp_path / "m.mpc", families={"*": NAME})
    assert not (tmp_path / "m.mpc").exists()


def test_an_architecture_without_its_loops_says_so(model, tmp_path):
    register(SCHOOLBOOK)
    try:
        with pytest.raises(TargetError, match="has no loops for SchoolbookSpec of kernel family schoolbook$"):
            mp.compile(model, output=tmp_path / "m.mpc", families={"*": NAME})
    finally:
        unregister(NAME)
