"""Manifests whose hashes hold and whose content is odd: a bundle that works, or one line that says what is wrong."""

import json
import math
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from mpcompile.cli.layer_table import layer_table
from mpcompile.errors import ModelError, MpError, TargetError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.grid import odd as odd_grid
from mpcompile.ir.grid import unsigned
from mpcompile.ir.plan import Arg, Placed
from mpcompile.runtime import archive, open_bundle
from tests.fuzz.structured import edited
from tests.runtime.small_bundle import BIAS, SHAPE, small_plan, small_variant, write_small
from tests.runtime.test_bundle_file import rewritten

EDITS = 400


ROW = {
    "name": "second",
    "op": "Layer",
    "source": ["conv"],
    "shape": [4, 8, 8],
    "macs": 256,
    "tile": {"row": 8, "pixels": 8, "block": 16, "lines": 1, "apart": True, "parallel": "lines"},
    "tile_source": {"from": "record", "gain": 1.2},
    "parts": [
        {
            "input": "y",
            "family": "dot",
            "kernel": [4, 1, 1, 1],
            "strides": [1, 2],
            "groups": 4,
            "macs": 256,
            "weight_grid": odd_grid(2).to_json(),
            "activation_grid": unsigned(2).to_json(),
        }
    ],
    "outputs": [{"tensor": "z", "formats": ["plain"], "grid": None}],
}
CODES = Placed(
    Buffer("c", "codes", (4, 6, 8), unsigned(2), (1, 0, 1, 0)), Arg("workspace", 0, "uint8", (8, 8, 4)), 0, 1
)


@pytest.fixture
def rich_path(tmp_path, library):
    """The small bundle, with a row and a buffer that have all that such a one may have."""
    plan = replace(small_plan(), buffers=(*small_plan().buffers, CODES))
    return write_small(tmp_path / "rich.mpc", small_variant(library, plan=plan, layers=[ROW]))


@pytest.mark.parametrize("seed", range(4))
def test_an_odd_manifest_is_refused_in_one_line_or_works(rich_path, seed):
    rng, manifest, refused = random.Random(seed), archive.read_manifest(rich_path), 0
    for _ in range(EDITS // 4):
        odd, said = edited(manifest, rng)
        path = rewritten(rich_path, {"manifest.json": json.dumps(odd).encode()})
        try:
            with open_bundle(path, threads=1) as bundle:
                inputs = {port.name: np.ones(port.shape, np.float32) for port in bundle.inputs}
                bundle.run(inputs)
                bundle.run_traced(inputs)
                layer_table(bundle.layers)
        except MpError as error:
            assert "\n" not in str(error) and str(error), said
            refused += 1
        except Exception as error:
            raise AssertionError(said) from error
    assert EDITS // 4 // 2 < refused < EDITS // 4
    path = rewritten(rich_path, {"manifest.json": json.dumps(manifest).encode()})
    with open_bundle(path, threads=1) as bundle:  # what was opened before has changed nothing
        x = np.ones(SHAPE, np.float32)
        np.testing.assert_array_equal(bundle.run(x), (2 * x + BIAS[:, None, None]) ** 2)


def refusal(path, change) -> str:
    """What is said of the bundle whose plan `change` has changed."""
    manifest = archive.read_manifest(path)
    change(manifest["variants"][0])
    with (
        pytest.raises(ModelError) as error,
        open_bundle(rewritten(path, {"manifest.json": json.dumps(manifest).encode()}), threads=1) as bundle,
    ):
        bundle.run(np.ones(SHAPE, np.float32))
    return str(error.value)


def put(value, *way):
    def change(variant):
        for step in way[:-1]:
            variant = variant[step]
        variant[way[-1]] = value

    return change


@pytest.mark.parametrize(
    "value, way, told",
    [
        (1 << 40, ("plan", "workspace_bytes"), "the workspace has 1099511627776 bytes, of which [0-9]+ are used"),
        (-1, ("plan", "workspace_bytes"), r"variants\[0\].plan.workspace_bytes must be int >= 0, not -1"),
        (1 << 70, ("plan", "live_bytes"), "live_bytes must be int <= "),
        (math.nan, ("plan", "live_bytes"), "manifest.json is not one of this bundle format"),
        (None, ("plan", "buffers", 3, "buffer", "grid"), "c is stored as codes and has no grid"),
        ("bits", ("plan", "buffers", 3, "buffer", "format"), "c is stored as 'bits', not as planes, codes"),
        ([4], ("plan", "buffers", 3, "buffer", "shape"), "c is stored as codes and has 1 axes"),
        (1 << 40, ("plan", "buffers", 3, "buffer", "grid", "hi"), "buffer.grid.hi must be int <= "),
        (9, ("plan", "buffers", 3, "buffer", "grid", "hi"), "variants.0..plan: 9 is no sum of the planes"),
        (5, ("plan", "buffers", 3, "written"), "c:codes is of calls 5 to 1"),
        (["weights", 0, "float32"], ("plan", "calls", 0, "args", 0), "plan.calls.0..args.0."),
        (["workspace", 0, "O", [4]], ("plan", "calls", 0, "args", 1), "dtype 'O'"),
        (["workspace", 0, "float32", [2, 2]], ("plan", "calls", 0, "args", 1), "layer first: its kernel refuses"),
        ({"name": "first"}, ("layers", 0), r"layers\[0\] lacks op"),
        ("dot", ("layers", 0, "parts"), r"layers\[0\].parts must be a list, not 'dot'"),
        ("none.so", ("library",), r"variants\[0\]: there is no member none.so"),
        ("", ("target", "name"), r"variants\[0\].target.name must be"),
    ],
)
def test_what_is_said_names_the_key(rich_path, value, way, told):
    said = refusal(rich_path, put(value, *way))
    assert re.search(told, said) and "rich.mpc" in said and "\n" not in said


def test_a_variant_for_an_unknown_kind_of_device(rich_path):
    manifest = archive.read_manifest(rich_path)
    manifest["variants"][0]["target"]["kind"] = "tpu"
    with pytest.raises(TargetError, match="there is no runtime for devices of kind tpu: there is cpu"):
        open_bundle(rewritten(rich_path, {"manifest.json": json.dumps(manifest).encode()}))
