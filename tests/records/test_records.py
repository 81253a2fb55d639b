"""Records on disk: what is read, what is refused, and which record a layer gets."""

import json

import pytest
from msgspec.structs import asdict, replace

from mpcompile.errors import UsageError
from mpcompile.records.key import distance, title
from mpcompile.records.store import (
    NONE,
    Record,
    Records,
    family_of,
    read_records,
    records_for,
    shipped_records,
    write_records,
)
from mpcompile.targets import load_target

FAMILY = "x86-64-v3"


def key(channels=64, size=28, kernel=3, step="1x2 planes", writes=("planes2",), stride=1, groups=1) -> dict:
    part = {
        "family": "popcount",
        "step": step,
        "in": [channels, size, size],
        "kernel": [kernel, kernel],
        "strides": [stride, stride],
        "groups": groups,
    }
    return {
        "out": [channels, size // stride, size // stride],
        "parts": [part],
        "reads": [],
        "epilogue": 4,
        "writes": list(writes),
    }


def record(of: dict, row: int = 7, tuned: bool = True) -> Record:
    tile, default = {"row": row}, {"row": 99}
    return Record(of, tile if tuned else default, 1e-4, 1.2e-4, default, "a CPU", 1, 64, "0.27", "abc")


def bad(field: str) -> dict:
    """A key's part with a 3 in `field`."""
    return {"parts": [key()["parts"][0] | {field: 3}]}


def anything(tile: dict) -> bool:
    return True


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / f"{FAMILY}.json"
    records = [record(key(64)), record(key(128), tuned=False)]
    write_records(path, FAMILY, records)
    assert sorted(read_records(path, FAMILY), key=str) == sorted(records, key=str)
    text = path.read_bytes()
    write_records(path, FAMILY, reversed(records))
    assert path.read_bytes() == text


def test_the_exact_key_wins_over_a_near_one():
    records = Records([record(key(64), 1), record(key(96), 2)])
    found = records.find(key(96), anything)
    assert found.record.tile == {"row": 2} and not found.transferred


def test_a_shape_never_seen_gets_the_nearest():
    records = Records([record(key(128), 1), record(key(256), 2)])
    found = records.find(key(192), anything)
    assert found.record.tile == {"row": 2} and found.transferred
    assert records.find(key(192), lambda tile: tile["row"] == 1).record.tile == {"row": 1}
    assert records.find(key(192), lambda tile: False) is None


def test_a_tile_that_cannot_be_the_layers_gives_way_to_the_nearest_shapes():
    records = Records([record(key(64), 1), record(key(96), 2)])
    found = records.find(key(96), lambda tile: tile["row"] == 1)
    assert found.record.tile == {"row": 1} and found.transferred


def test_a_near_shape_whose_default_won_says_default():
    farther = record(key(128), 3)
    assert Records([farther]).find(key(80), anything).record is farther
    assert Records([record(key(64), tuned=False), farther]).find(key(80), anything) is None


@pytest.mark.parametrize(
    "other",
    [key(step="2x2 planes"), key(kernel=1), key(groups=2), key(channels=64 * 16), {**key(), "parts": []}],
    ids=["bits", "pointwise", "groups", "far", "no contraction"],
)
def test_nothing_is_transferred_between_layers_that_differ_in_kind(other):
    assert Records([record(key())]).find(other, anything) is None


def test_distance_is_zero_for_itself_and_grows():
    assert distance(key(), key()) == 0
    assert 0 < distance(key(), key(writes=("codes",))) < distance(key(), key(128)) < distance(key(), key(256))
    assert title(key(stride=2)) == "popcount 1x2 planes 64×28×28→64 3×3 /2"


BROKEN = {
    "format must be 1": {"format": 2},
    "family is 'x86-64-v2'": {"family": "x86-64-v2"},
    "records must be a list": {"records": {}},
    "records[0] has tiles, which is unknown": {"records": [asdict(record(key())) | {"tiles": {}}]},
    "records[0] lacks cpu": {"records": [{k: v for k, v in asdict(record(key())).items() if k != "cpu"}]},
    "records[0].threads must be int": {"records": [asdict(record(key())) | {"threads": "1"}]},
    "records[0].seconds must be positive": {"records": [asdict(record(key())) | {"seconds": 0.0}]},
    "records[0].key lacks out": {"records": [asdict(record({k: v for k, v in key().items() if k != "out"}))]},
    "records[0].key.parts[0] must be an object": {"records": [asdict(record(key() | {"parts": [3]}))]},
    "records[0].key.out[1] must be 1 or more, not 0": {"records": [asdict(record(key() | {"out": [64, 0, 28]}))]},
    "records[0].key.out must be a list of at least one, not []": {"records": [asdict(record(key() | {"out": []}))]},
    "records[0].key.parts[0].kernel must be a list, not 3": {
        "records": [asdict(record(key(kernel=3) | bad("kernel")))]
    },
    "records[0].seconds must be positive, not -8.1e-05": {"records": [asdict(record(key())) | {"seconds": -8.1e-05}]},
    "records[0].default_seconds must be positive, not nan": {
        "records": [asdict(record(key())) | {"default_seconds": float("nan")}]
    },
    "lacks records": {"records": None},
}


@pytest.mark.parametrize("says", BROKEN)
def test_a_wrong_file_is_refused_with_its_name_and_key(says, tmp_path):
    path = tmp_path / f"{FAMILY}.json"
    data = {"format": 1, "family": FAMILY, "records": []} | BROKEN[says]
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))
    with pytest.raises(UsageError) as refused:
        records_for(load_target(FAMILY), tmp_path)
    assert str(path) in str(refused.value) and says in str(refused.value)


def test_no_json_and_no_folder(tmp_path):
    (tmp_path / f"{FAMILY}.json").write_text("{")
    with pytest.raises(UsageError, match="is no JSON"):
        records_for(load_target(FAMILY), tmp_path)
    with pytest.raises(UsageError, match="there is no folder of records"):
        records_for(load_target(FAMILY), tmp_path / "nowhere")
    (tmp_path / f"{FAMILY}.json").rename(tmp_path / f"{FAMILY}.trials.jsonl")
    with pytest.raises(UsageError, match="there are no records in .*: name a folder that"):
        records_for(load_target(FAMILY), tmp_path)


def test_a_users_records_win_and_none_means_none(tmp_path):
    shipped = records_for(load_target(FAMILY))
    mine = replace(next(iter(shipped.by_key.values())), cpu="mine")
    write_records(tmp_path / f"{FAMILY}.json", FAMILY, [mine])
    both = records_for(load_target(FAMILY), tmp_path)
    assert len(both) == len(shipped) and both.find(mine.key, anything).record.cpu == "mine"
    assert len(records_for(load_target(FAMILY), NONE)) == 0


def test_of_several_threads_the_fewest_and_of_folders_the_last():
    one, two = record(key(), 1), replace(record(key(), 2), threads=2)
    for records in ([one, two], [two, one]):
        assert Records(records).find(key(), anything).record is one
    assert Records([one], [two]).find(key(), anything).record is two


def test_a_file_keeps_records_of_several_threads(tmp_path):
    path = tmp_path / f"{FAMILY}.json"
    both = [record(key(), 1), replace(record(key(), 2), threads=2)]
    write_records(path, FAMILY, both)
    assert read_records(path, FAMILY) == both


def test_families():
    assert family_of(load_target("zen4")) == "x86-64-v4-vnni-vpopcntdq"
    assert [family_of(load_target(f"x86-64-v{n}")) for n in (2, 3, 4)] == [f"x86-64-v{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize("path", sorted(shipped_records().glob("*.json")), ids=lambda p: p.stem)
def test_what_ships_names_its_cpu_and_tiles_that_fit(path):
    from mpcompile.schedules.tile import Tile

    records = read_records(path, path.stem)
    assert records and all(r.cpu and r.tvm and r.trials for r in records)
    assert all(Tile.from_json(r.tile).row <= r.key["out"][2] for r in records)


def test_both_families_of_x86_ship():
    assert {p.stem for p in shipped_records().glob("*.json")} >= {"x86-64-v3", "x86-64-v4-vnni-vpopcntdq"}
