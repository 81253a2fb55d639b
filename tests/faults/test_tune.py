"""A tune whose disk fills up, that is killed at named places, or whose clock jumps: what was measured is kept, once, and
the same command goes on with it."""

import json

import pytest

from tests.faults.conftest import TARGET, contents

HERE = {"mpcompile.api.tune:this_machine": "mpcompile.remote.pool:DevicePool.local"}
"""Measures in the command's own process, which saves the seconds that another takes to start."""
JUMPS = (-86400.0, 86400.0)
TRIALS, RECORDS = f"records/{TARGET}.trials.jsonl", f"records/{TARGET}.json"
FILES = {TRIALS, RECORDS, "found.json"}


def command(model) -> list:
    return ["tune", model, "--target", TARGET, "--trials", "2", "-o", "records", "--json", "found.json"]


def keys(folder) -> list[str]:
    """Of the trials that are whole."""
    path = folder / TRIALS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["key"] for line in lines if line.endswith(b"}\n")]


def records(folder) -> int:
    path = folder / RECORDS
    return len(json.loads(path.read_text())["records"]) if path.exists() else 0


def goes_on(disk, model, folder) -> None:
    """With what is there, to its end; nothing is measured twice, and nothing else is left."""
    kept = keys(folder)
    ended, _ = disk.run(command(model), folder=folder, instead=HERE)
    assert ended.code == 0, ended.err
    found = json.loads((folder / "found.json").read_text())
    after = keys(folder)
    assert after[: len(kept)] == kept and len(set(after)) == len(after)
    assert (found["trials"], found["trials_on_disk"]) == (len(after) - len(kept), len(kept))
    assert records(folder) == len(found["layers"]) == 3 and not found["failures"]
    assert set(contents(folder)) == FILES and not list((folder / "tmp").iterdir())


def test_full_disk(searching_disk, model):
    folder = searching_disk.folder("tune")
    for at, nth, words, kept in (
        ("mpcompile-work-", 1, "cannot make a temporary folder in", (0, 0)),
        ("kernels", 2, "cannot write temporary files into", (0, 0)),
        (TRIALS, 1, TRIALS, (0, 0)),
        (TRIALS, 3, TRIALS, (1, 0)),
        (f".{TARGET}.json", 2, RECORDS, (2, 0)),
        (f".{TARGET}.json", 4, RECORDS, (4, 1)),
        ("found.json", 1, "found.json", (6, 3)),
    ):
        ended, _ = searching_disk.run(command(model), nth, at, folder, instead=HERE)
        assert ended.code == 2 and words in ended.line and "No space left on device" in ended.line, (at, nth, ended)
        assert (len(keys(folder)), records(folder)) == kept, (at, nth)
        assert set(contents(folder)) <= FILES
    goes_on(searching_disk, model, folder)


def test_killed(searching_disk, model):
    """With its first trial on the disk, between trials and records, as the first record gets its name, and after that."""
    folder = searching_disk.folder("tune killed")
    for at, given, when, kept in (
        ("mpcompile.latency.cache:Lines.put", "", "after", (1, 0)),
        ("mpcompile.tuning.trials:Trials.confirm", "", "before", (2, 0)),
        ("os:replace", f"{TARGET}.json", "before", (2, 0)),
        ("os:replace", f"{TARGET}.json", "after", (2, 1)),
    ):
        ended, _ = searching_disk.run(command(model), folder=folder, instead=HERE, at=at, given=given, when=when)
        assert ended.reached and ended.code == -9, (at, when, ended)
        assert (len(keys(folder)), records(folder)) == kept, (at, when)
        assert not (folder / "found.json").exists()
    goes_on(searching_disk, model, folder)


@pytest.mark.parametrize("jump", JUMPS)
def test_clock(jump, searching_disk, model):
    folder = searching_disk.folder(f"tune {jump}")
    clock = {"at": "mpcompile.latency.cache:Lines.put", "what": "clock", "clock": jump}
    ended, _ = searching_disk.run(command(model), folder=folder, instead=HERE, **clock)
    assert ended.reached and ended.code == 0, ended.err
    assert all(0 < layer["seconds"] < 1 for layer in json.loads((folder / "found.json").read_text())["layers"])
    assert len(set(keys(folder))) == len(keys(folder)) > 3


@pytest.mark.parametrize("write", [1, 2])
def test_no_room_for_the_session(write, searching_disk, model):
    """Of the process that measures: for its folder, and for what it makes in there."""
    folder = searching_disk.folder(f"tune session {write}")
    ended, _ = searching_disk.run(command(model), write, "mpcompile-session-", folder)
    assert ended.code == 2 and f" {folder}/tmp: No space left on device" in ended.line  # whoever meets it first
    assert contents(folder) == {} and not list((folder / "tmp").iterdir())
