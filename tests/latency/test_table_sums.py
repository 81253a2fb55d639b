"""The latency table's sums, by hand: four layers whose times are round numbers.

L0   c0 reads `image`; writes `mid`
L1   c1 and its neighbour d1, added up, both read `mid`; writes `out`
L2   a float operator that only looks at `mid` and `out`; c2, which reads both side by side
"""

import json

import pytest

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency import table as tables


def by_hand() -> tables.LatencyTable:
    return tables.LatencyTable(
        "by hand",
        {"cpu": "a head"},
        BitCandidates((1, 2), (2, 4)),
        {
            "c0": tables.Contraction("L0", 2, 8, ("image",)),
            "c1": tables.Contraction("L1", 2, 2, ("mid",)),
            "d1": tables.Contraction("L1", 2, 2, ("mid",)),
            "c2": tables.Contraction("L3", 2, 2, ("mid", "out")),
        },
        {"image": (8, "codes"), "mid": (2, "planes"), "out": (2, "planes"), "aside": (2, "planes")},
        {
            "L0": tables.LayerTimes(
                100.0,
                {"c0": {(1, 8): {"codes": 90.0}, (2, 8): {"codes": 100.0}}},
                packs={"mid": {2: {"planes": 100.0, "codes": 101.0, "codes+planes": 103.0}, 4: {"codes": 107.0}}},
            ),
            "L1": tables.LayerTimes(
                200.0,
                {
                    "c1": {
                        (1, 2): {"planes": 150.0, "codes": 190.0},
                        (2, 2): {"planes": 200.0, "codes": 210.0},
                        (1, 4): {"planes": 230.0, "codes": 220.0},
                        (2, 4): {"codes": 240.0},
                    },
                    "d1": {
                        (1, 2): {"planes": 195.0},
                        (2, 2): {"planes": 200.0, "codes": 200.5},
                        (1, 4): {"planes": 235.0, "codes": 236.0},
                        (2, 4): {"planes": 240.0, "codes": 241.0},
                    },
                },
                packs={"out": {2: {"planes": 200.0, "codes": 200.25}, 4: {"": 200.75}}},
                views={"mid": {2: 200.0, 4: 900.0}},
            ),
            "L2": tables.LayerTimes(
                300.0,
                packs={"out": {2: {"planes": 300.0, "codes": 302.0}, 4: {"": 304.0}}},
                views={"mid": {2: 300.0, 4: 310.0}, "out": {2: 300.0, 4: 900.0}},
            ),
            "L3": tables.LayerTimes(
                400.0,
                {
                    "c2": {
                        (1, 2): {"planes": 380.0},
                        (2, 2): {"planes": 400.0},
                        (1, 4): {"codes": 430.0},
                        (2, 4): {"codes": 440.0},
                    }
                },
                packs={"aside": {2: {"planes": 400.0, "codes": 444.0}}},
            ),
        },
        beside=7.0,
    )


BASES = {"L0": 100.0, "L1": 200.0, "L2": 300.0, "L3": 400.0}


@pytest.fixture
def table():
    return by_hand()


def test_as_it_is_the_network_takes_its_layers_and_what_is_beside_them(table):
    assert table.predict_layers({}) == BASES
    assert table.predict() == table.predict({}) == 1000.0 + 7.0
    assert table.predict({"c0": (2, 8), "c1": (2, 2), "d1": (2, 2), "c2": (2, 2)}) == 1007.0


def test_nothing_takes_no_time():
    assert tables.LatencyTable("empty", {}, BitCandidates((), ()), {}, {}, {}).predict() == 0.0


def test_weights_change_their_layer_only(table):
    assert table.predict_layers({"c0": (1, 8)}) == {**BASES, "L0": 90.0}
    assert table.predict({"c0": (1, 8)}) == 997.0


def test_two_convolutions_of_a_layer_each_bring_their_weights_and_their_common_input_once(table):
    assert table.predict_layers({"c1": (1, 2)})["L1"] == 150.0
    assert table.predict_layers({"c1": (1, 2), "d1": (1, 2)})["L1"] == 200.0 - 50.0 - 5.0
    # 40 for an input of 4 bits, once; 0.25 since c2 then wants `out` in codes; c1 at one bit 20 less than at two, d1 5 less
    assert table.predict_layers({"c1": (2, 4), "d1": (2, 4)})["L1"] == 240.25
    assert table.predict_layers({"c1": (1, 4), "d1": (1, 4)})["L1"] == 240.25 - 20.0 - 5.0


def test_an_inputs_bits_change_who_writes_it_who_reads_it_and_who_looks_at_it(table):
    """A layer that reads or writes a tensor has measured it so, and does not count what looking at it costs besides."""
    # c1 wants codes, d1 planes, c2 codes: `mid` is written as both, which was not measured at 4 bits: the dearest there
    assert table.predict_layers({"c1": (2, 4)}) == {"L0": 107.0, "L1": 240.25, "L2": 310.0 + 2.0, "L3": 440.0}
    assert table.predict({"c1": (2, 4)}) == 107.0 + 240.25 + 312.0 + 440.0 + 7.0


def test_side_by_side_inputs_are_read_at_the_most_of_their_bits(table):
    """c2 reads `mid` of 4 bits beside `out` of 2."""
    assert table.predict_layers({"c1": (2, 4)})["L3"] == 440.0
    assert table.formats({"c1": (2, 4)})["out"] == "codes"


def test_what_readers_want_is_what_is_written(table):
    assert table.formats() == {"image": "codes", "mid": "planes", "out": "planes"}
    assert table.formats({"c1": (1, 4)}) == {"image": "codes", "mid": "codes+planes", "out": "codes"}
    table.layers["L1"].reads["d1"][2, 2]["codes"] = 199.0
    assert table.formats() == {"image": "codes", "mid": "codes+planes", "out": "planes"}
    assert table.predict_layers({})["L0"] == 103.0


def test_a_cell_is_that_of_its_format_or_the_cheapest(table):
    assert table.latency("c1", 1, 4) == 220.0 and table.format("c1", 1, 4) == "codes"
    assert table.latency("c1", 1, 4, "planes") == 230.0
    assert table.latency("d1", 1, 4) == 235.0 and table.format("d1", 1, 4) == "planes"
    with pytest.raises(UsageError, match="no W2A4 of c1 read as planes, .*: it has codes$"):
        table.latency("c1", 2, 4, "planes")
    assert table.matrix("c1").tolist() == [[150.0, 220.0], [200.0, 240.0]]


def test_writing_costs_the_difference_to_how_it_is_written_now_in_every_layer_that_does(table):
    assert table.pack("mid", 2) == 0.0
    assert table.pack("mid", 2, "codes") == 1.0
    assert table.pack("mid", 4, "codes") == 7.0
    assert table.pack("out", 2, "codes") == 0.25 + 2.0
    assert table.pack("out", 4, "codes") == table.pack("out", 4) == 0.75 + 4.0
    assert table.pack("image", 2) == 0.0
    with pytest.raises(UsageError, match="no A4 of quantizer mid written as planes, .*: it has codes$"):
        table.pack("mid", 4)


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda t: t.predict({"nobody": (1, 2)}), "no layer nobody: it has c0, c1, d1, c2$"),
        (lambda t: t.predict({"c1": (3, 2)}), "no W3A2 of c1: it has W1A2 W1A4 W2A2 W2A4$"),
        (lambda t: t.pack("mid", 3), "no A3 of quantizer mid: it has A2, A4$"),
        (lambda t: t.predict({"c1": (1, 4), "d1": (1, 2)}), "d1 and c1 read the same mid, but are given 2 and 4 bits"),
    ],
)
def test_what_it_has_is_said_with_what_it_has_not(table, ask, says):
    with pytest.raises(UsageError, match=says):
        ask(table)


def test_layers_that_read_one_quantizer_may_agree(table):
    assert table.predict({"c1": (1, 4), "d1": (1, 4), "c2": (2, 4)}) > 0


def test_every_number_is_on_disk(table, tmp_path):
    table.save(tmp_path / "lut.json")
    assert tables.LatencyTable.load(tmp_path / "lut.json") == by_hand()
    written = json.loads((tmp_path / "lut.json").read_text())
    assert written["latency_table"] == 2 and written["unit"] == "seconds" and written["beside"] == 7.0
    assert written["layers"]["L0"] == {
        "base": 100.0,
        "LUT": {"c0": {"w1a8": {"codes": 90.0}, "w2a8": {"codes": 100.0}}},
        "PACK": {"mid": {"a2": {"planes": 100.0, "codes": 101.0, "codes+planes": 103.0}, "a4": {"codes": 107.0}}},
        "views": {},
    }
    assert written["layers"]["L2"]["views"] == {"mid": {"a2": 300.0, "a4": 310.0}, "out": {"a2": 300.0, "a4": 900.0}}


def test_another_version_of_the_file_is_refused():
    data = by_hand().to_json()
    for version in (1, 3):
        with pytest.raises(ModelError, match=f"old.json is a latency table of format {version}, this version reads 2"):
            tables.LatencyTable.from_json({**data, "latency_table": version}, "old.json")


@pytest.mark.parametrize("lacks", ["model", "layers", "contractions", "quantizers", "beside", "bits", "measured_on"])
def test_a_file_that_lacks_a_part_is_refused(lacks):
    data = by_hand().to_json()
    del data[lacks]
    with pytest.raises(ModelError, match=f"lut.json is no latency table .lacks {lacks}"):
        tables.LatencyTable.from_json(data, "lut.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data["layers"]["L0"].update(base="much"),  # ValueError
        lambda data: data["layers"].update(L0=[1]),  # TypeError
        lambda data: data.update(layers=[1]),  # AttributeError
        lambda data: data["layers"]["L0"]["PACK"]["mid"].update({"": {}}),  # a key without bits
    ],
)
def test_a_part_that_is_something_else_is_refused(spoil):
    data = by_hand().to_json()
    spoil(data)
    with pytest.raises(ModelError, match="lut.json is no latency table"):
        tables.LatencyTable.from_json(data, "lut.json")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "lut.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ModelError, match="lut.json is no latency table .not text"):
        tables.LatencyTable.load(tmp_path / "lut.json")


def test_bits_on_the_command_line_are_all_from_1_to_8_each_once_in_order():
    every = (1, 2, 3, 4, 5, 6, 7, 8)
    assert BitCandidates.parse("w12345678a87654321") == BitCandidates(every, every)
    assert BitCandidates.parse("w2212a8") == BitCandidates((1, 2), (8,))
    for wrong in ("x1a2", " w1a2", "w1x2", "w12", "wa", "w1a9"):
        with pytest.raises(UsageError, match=f"bits {wrong!r} are not like w1234a1248"):
            BitCandidates.parse(wrong)
