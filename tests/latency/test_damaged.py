"""What was damaged on disk never becomes a latency: lines of the cells' file, and the table itself."""

import json

import pytest

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.latency.table import LatencyTable
from tests.latency.networks import branching
from tests.latency.simulated import Simulated

BITS = BitCandidates.of([1, 2], [2, 4])
TIMES = ("seconds", "low", "high")
FIELDS = ("key", "layer", "row", "of", "bits", "form", "kernel", "seconds", "low", "high", "device", "reference")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(branching(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory) -> tuple[LatencyTable, list[dict]]:
    """The true table, and the lines that measuring it left."""
    path = tmp_path_factory.mktemp("true") / "cells"
    table = build_table(model, BITS, Simulated(), Cache(path))
    return table, [json.loads(line) for line in path.read_text().splitlines()]


def scaled(line: dict, factor: float, *names: str) -> dict:
    return line | {name: line[name] * factor for name in names}


DAMAGE = {
    **{f"lacks {name}": lambda line, name=name: {k: v for k, v in line.items() if k != name} for name in FIELDS},
    **{f"{name} is text": lambda line, name=name: line | {name: "1e-5"} for name in (*TIMES, "reference")},
    **{f"{name} is null": lambda line, name=name: line | {name: None} for name in FIELDS},
    **{f"{name} is NaN": lambda line, name=name: line | {name: float("nan")} for name in (*TIMES, "reference")},
    **{f"{name} is infinite": lambda line, name=name: line | {name: float("inf")} for name in (*TIMES, "reference")},
    **{f"{name} is negative": lambda line, name=name: scaled(line, -1, name) for name in (*TIMES, "reference")},
    **{f"{name} is 0": lambda line, name=name: line | {name: 0.0} for name in (*TIMES, "reference")},
    **{f"{name} is thousandfold": lambda line, name=name: scaled(line, 1000, name) for name in ("seconds", "low")},
    **{f"{name} is a thousandth": lambda line, name=name: scaled(line, 1e-3, name) for name in ("seconds", "high")},
    "reference is thousandfold": lambda line: scaled(line, 1000, "reference"),
    "reference is a thousandth": lambda line: scaled(line, 1e-3, "reference"),
    "hours": lambda line: scaled(line, 1e10, *TIMES),
    "no object": lambda line: [line["key"]],
    "bits are a number": lambda line: line | {"bits": 2},
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_line_is_measured_anew_and_the_others_stay(measured, model, what, tmp_path):
    table, lines = measured
    assert len(lines) > 5
    damaged = [*lines[:2], DAMAGE[what](lines[2]), *lines[3:]]
    (tmp_path / "cells").write_text("".join(json.dumps(line) + "\n" for line in damaged))
    bench = Simulated()
    again = build_table(model, BITS, bench, Cache(tmp_path / "cells"))
    assert again == table
    assert bench.timed <= 1  # none where another line is of the same kernel
    after = [json.loads(line) for line in (tmp_path / "cells").read_text().splitlines()]
    assert after[: len(damaged)] == damaged or "NaN" in what
    assert {line["key"] for line in after[len(damaged) :]} == {lines[2]["key"]}


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"{", b'"', b"null", b"{}", b"\x00" * 40, b'{"key": "a"}'])
def test_garbage_between_lines_is_nothing(measured, garbage, tmp_path):
    _, lines = measured
    text = [json.dumps(line).encode() for line in lines]
    (tmp_path / "cells").write_bytes(b"\n".join([*text[:3], garbage, *text[3:], b""]))
    assert [line.key for line in Cache(tmp_path / "cells")] == [line["key"] for line in lines]


def changed(data, path: list, value):
    """A copy of JSON with `value` at `path`; None removes."""
    copy = json.loads(json.dumps(data))
    at = copy
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copy


def places(data: dict) -> dict[str, list]:
    """One number of each kind."""
    layer, row = next((name, row) for name, row in data["layers"].items() if row["LUT"])
    conv, cells = next(iter(row["LUT"].items()))
    index, forms = next(iter(cells.items()))
    other, packs = next((name, row["PACK"]) for name, row in data["layers"].items() if row["PACK"])
    q, levels = next(iter(packs.items()))
    a, written = next(iter(levels.items()))
    return {
        "base": ["layers", layer, "base"],
        "LUT": ["layers", layer, "LUT", conv, index, next(iter(forms))],
        "PACK": ["layers", other, "PACK", q, a, next(iter(written))],
        "beside": ["beside"],
        "index": ["layers", layer, "LUT", conv, index],
        "contraction": ["contractions", conv, "layer"],
        "quantizers": ["contractions", conv, "quantizers"],
        "own bits": ["quantizers", q, "a"],
        "bits": ["bits", "w"],
    }


WRONG = [
    *[(where, value) for where in ("base", "LUT", "PACK") for value in (float("nan"), -1e-5, 0.0, "1e-5", 1e9, True)],
    *[("beside", value) for value in (float("nan"), float("inf"), "0", 1e9)],
    *[(where, None) for where in ("base", "beside", "contraction", "own bits", "bits")],
    *[("index", value) for value in ({}, 3, [1e-5])],
    *[("contraction", value) for value in ("no such layer", 3)],
    *[("quantizers", value) for value in (["no such quantizer"], "q0")],
    *[("own bits", value) for value in (0, 99, "2")],
    *[("bits", value) for value in (3, [0], ["1"], [1.5])],
]


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_a_damaged_table_is_refused_in_one_line(measured, where, value, tmp_path):
    data = measured[0].to_json()
    assert LatencyTable.from_json(data) == measured[0]
    (tmp_path / "LUT.json").write_text(json.dumps(changed(data, places(data)[where], value)))
    with pytest.raises(ModelError, match=r"LUT\.json is no latency table \(") as refused:
        LatencyTable.load(tmp_path / "LUT.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("beside", None, "lacks beside"),
        ("bits", 3, "bits.w must be a list, not 3"),
        ("bits", [0], "bits.w[0] must be 1 or more, not 0"),
        ("beside", "0", "beside must be float, not '0'"),
        ("quantizers", ["q99"], "reads q99, which is none of its quantizers"),
    ],
)
def test_it_is_said_what_is_wrong(measured, where, value, says):
    data = measured[0].to_json()
    with pytest.raises(ModelError) as refused:
        LatencyTable.from_json(changed(data, places(data)[where], value), "the table")
    assert says in str(refused.value)


def test_keys_that_are_no_bits_are_refused(measured):
    data = measured[0].to_json()
    *path, index = places(data)["index"]
    for key in ("w1", "a2w1", "W1A2", "w1a2b", ""):
        with pytest.raises(ModelError, match="is no latency table"):
            LatencyTable.from_json(changed(data, [*path, key], {"codes": 1e-5}))
    assert LatencyTable.from_json(changed(data, [*path, index], {"codes": 1e-5}))
