"""A search that meets a full disk and SIGKILL at one named place after the other, in one folder: what was finished stays
byte for byte, and the same command goes on with it. Its report is written whole or not at all."""

import json
import shutil

import pytest

from tests.faults.conftest import contents
from tests.search.small_config import small_config

COMMAND = ["search", "c.toml", "-o", "run"]
POINT = "run/points/target-60pc"
AGAIN = ("front.json", "run.json", "phases.json", "log.jsonl", "LUT.json.cells", "LUT.json", "network.onnx")
"""Files that are written more than once, or grow."""
DEVICE = "mpcompile.api.pool_search_device:PoolSearchDevice"
FAULTS = (
    # what is the last file that is there then, and where: a full disk's file and write, or a function
    ("run/config.toml", {"full_at": ".run.json.", "full_from": 2}),
    ("run/run.json", {"full_at": "LUT.json.cells", "full_from": 3}),
    ("run/LUT.json", {"at": "mpcompile.search.task:ImagesTask.export", "nth": 2}),
    ("run/points/float/trained.json", {"full_at": "float/.model.onnx.", "full_from": 2}),
    ("run/points/float/exported.json", {"full_at": ".search.npz.", "full_from": 3}),
    (f"{POINT}/search.npz", {"full_at": "log.jsonl", "full_from": 1}),
    (f"{POINT}/searched.json", {"at": "mpcompile.search.run:train_still"}),
    (f"{POINT}/exported.json", {"at": f"{DEVICE}.compile"}),
    (f"{POINT}/exported.json", {"full_at": "points/target-60pc/.model.mpc.", "full_from": 3}),
    (f"{POINT}/compiled.json", {"at": f"{DEVICE}.network_seconds", "when": "after"}),
    (f"{POINT}/measured.json", {"at": f"{DEVICE}.verify"}),
    (f"{POINT}/metrics.json", {"full_at": ".front.json.", "full_from": 1}),
    (f"{POINT}/metrics.json", {"at": "os:replace", "given": "front.json"}),
    ("run/race.json", {"full_at": ".report.html.", "full_from": 2}),
    ("run/report.html", {"full_at": ".report.json.", "full_from": 2}),
)


@pytest.fixture(scope="module")
def folder(searching_disk):
    found = searching_disk.folder("search")
    options = {"data": {"train": 64, "test": 32}, "baselines": {"uniform": [], "float": False, "int8": False}}
    (found / "c.toml").write_text(small_config(**options))
    return found


@pytest.fixture(scope="module")
def finished(searching_disk, folder):
    """(the folder, what was said at each fault)"""
    said = []
    for last, fault in FAULTS:
        before = contents(folder)
        ended, _ = searching_disk.run(COMMAND, folder=folder, **fault)
        if "at" in fault:
            assert ended.reached and ended.code == -9, (fault, ended)
        else:
            assert ended.code == 2 and "No space left on device" in ended.line, (fault, ended)
            said.append(ended.line)
        after = contents(folder)
        assert last in after, (fault, sorted(after))
        changed = [name for name, data in before.items() if name.startswith("run/") and after.get(name) != data]
        assert not [n for n in changed if not n.endswith(AGAIN) and "/." not in n and ".part.npz" not in n], fault
        for name in after:
            if name.endswith(".json") and "/." not in name:
                json.loads(after[name])
    ended, _ = searching_disk.run(COMMAND, folder=folder)
    assert ended.code == 0 and "damaged" not in ended.err, ended
    return folder, said


def test_it_goes_on_to_its_end(finished):
    folder, said = finished
    names = ("run.json", "LUT.json.cells", "float/model.onnx", "search.npz", "log.jsonl", "target-60pc/model.mpc")
    for name, line in zip((*names, "front.json", "report.html", "report.json"), said, strict=True):
        assert line.endswith(f"{name}: No space left on device")
    front = json.loads((folder / "run/front.json").read_text())
    assert front["front"] == ["target-60pc"] and front["points"][0]["measured"] > 0
    events = [json.loads(line)["event"] for line in (folder / "run/log.jsonl").read_text().splitlines()]
    assert {"latency table", "trained", "searched", "measured", "checked", "raced"} <= set(events)
    left = [name for name in contents(folder / "run") if "mpcompile-work-" in name or ".part." in name]
    assert not left and not list((folder / "tmp").glob("mpcompile-*"))


def test_report(finished, searching_disk):
    folder, _ = finished
    before = contents(folder)
    for name in ("report.html", "report.json"):
        for write in (1, 2):
            ended, _ = searching_disk.run(["report", "run"], write, f".{name}.", folder)
            assert ended.code == 2 and f"{name}: No space left on device" in ended.line
            assert contents(folder) == before
    ended, _ = searching_disk.run(["report", "run"], folder=folder)
    assert ended.code == 0 and contents(folder) == before


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_clock(jump, finished, searching_disk):
    """In the middle of a search that ends as one without: the same weights, and no negative or endless seconds."""
    folder, _ = finished
    whole = contents(folder / POINT)
    shutil.rmtree(folder / "run/points")
    (folder / "run/phases.json").unlink()
    place = {"at": "mpcompile.search.methods.mixtures:Mixtures.search", "what": "clock", "clock": jump}
    ended, _ = searching_disk.run(COMMAND, folder=folder, **place)
    assert ended.reached and ended.code == 0, ended.err
    assert contents(folder / POINT)["weights.npz"] == whole["weights.npz"]
    assert all(0 <= s < 3600 for s in json.loads((folder / "run/phases.json").read_text())["seconds"].values())
