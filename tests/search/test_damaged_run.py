"""What was damaged in the folder of a finished run, or of one that was killed, is named in one line and made again; all
else stays, and every figure is what it was."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.search.config import BaselineOptions, ObjectiveOptions, PretrainOptions, TrainingOptions
from mpcompile.search.folder import Folder
from mpcompile.search.run import run
from tests.search.simulated_sweep import CONFIG, SimulatedDevice, sweep

SMALL = replace(
    CONFIG,
    search=replace(CONFIG.search, epochs=1, warmup=0),
    objective=ObjectiveOptions(targets=["60 %", "30 %"]),
    pretrain=PretrainOptions(epochs=1, rate=2e-3),
    retrain=TrainingOptions(epochs=1),
    baselines=BaselineOptions([BitPair(1, 1)], True, True),
)
GROWS = ("log.jsonl", "phases.json", "device.log")
SEARCHED, TRAINED = "target-60pc", ("float", "uniform-w1a1", "target-60pc", "target-30pc")
COMPILED = TRAINED[1:]


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {"truncated": truncated, "flipped": flipped, "deleted": Path.unlink}

AGAIN = {
    # file → what is trained, or asked of the device, to make it again
    "LUT.json": ["table"],
    "network.onnx": ["table"],
    "table.json": ["table"],
    "race.json": ["race"],
    "run.json": [],
    "front.json": [],
    "phases.json": [],
    "log.jsonl": [],
    "LUT.json.cells": [],
    "points/int8/model.onnx": ["quantize", "answers int8"],
    "points/int8/quantized.json": ["quantize", "answers int8"],
    "points/int8/metrics.json": [],
    "points/float/checked.json": ["answers float"],
}
for point in TRAINED:
    AGAIN |= {f"points/{point}/{file}": [f"train {point}"] for file in ("weights.npz", "trained.json")}
    AGAIN |= {f"points/{point}/{file}": [] for file in ("model.onnx", "exported.json", "metrics.json")}
for point in COMPILED:
    AGAIN |= {f"points/{point}/{file}": [f"compile {point}"] for file in ("model.mpc", "compiled.json")}
    AGAIN[f"points/{point}/measured.json"] = [f"network_seconds {point}"]
    AGAIN[f"points/{point}/checked.json"] = [f"{what} {point}" for what in ("answers", "verify", "profile")]
for point in ("target-60pc", "target-30pc"):
    AGAIN |= {f"points/{point}/{file}": [f"search {point}"] for file in ("search.npz", "searched.json")}
NOT_READ_AGAIN = ("front.json", "metrics.json", "log.jsonl", "LUT.json.cells", "run.json")  # this last by `run` alone


def cases() -> dict[str, dict[str, str]]:
    """A file's name → files of that name, the first and a searched point's, each with its damage; others of that name
    stay whole, and nothing may be done for them."""
    found = {}
    for name in sorted({Path(file).name for file in AGAIN}):
        same = [file for file in AGAIN if Path(file).name == name]
        chosen = dict.fromkeys([same[0], *(f for f in same if SEARCHED in f)])
        found[name] = {file: tuple(DAMAGE)[(len(found) + i) % 3] for i, file in enumerate(chosen)}
    return found


CASES = cases()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run's folder, and its result."""
    out = tmp_path_factory.mktemp("finished") / "run"
    found = sweep(out, config=SMALL).run().to_json()
    shutil.copytree(out, out.with_name("whole"))
    return out, found


@pytest.fixture
def out(finished):
    """The folder as it was when the run had ended."""
    out = finished[0]
    shutil.rmtree(out)
    shutil.copytree(out.with_name("whole"), out)
    (out / "device.log").write_text("")
    return out


def run_again(out: Path) -> tuple[dict, set[str], list[str]]:
    """The result, what was done for it, and the lines that were said."""
    done, lines = set(), []

    def show(what, at, total, figures):
        if what.startswith(("train ", "search ")):
            done.add(what)

    found = sweep(out, show, SMALL, lines.append).run().to_json()
    asked = (out / "device.log").read_text().splitlines()
    return found, done | {"race" if line.startswith("race") else line for line in asked}, lines


def contents(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file() and f.name not in GROWS}


def whole(out: Path) -> dict[str, bytes]:
    return contents(out.with_name("whole"))


def test_every_file_of_a_run_is_tried(out):
    there = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert there - {"device.log"} == set(AGAIN)
    assert {Path(file).name for files in CASES.values() for file in files} == {Path(file).name for file in AGAIN}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_is_named_and_made_again_and_nothing_else(finished, out, name):
    for file, how in CASES[name].items():
        DAMAGE[how](out / file)
    found, done, lines = run_again(out)
    assert found == finished[1]
    assert done == {what for file in CASES[name] for what in AGAIN[file]}
    said = [
        file
        for file, how in CASES[name].items()
        if name not in NOT_READ_AGAIN and (how != "deleted" or name == "LUT.json" or not name.endswith(".json"))
    ]
    assert [line.split(" ")[0] for line in lines] == [str(out / file) for file in said]
    assert not any("\n" in line for line in lines)
    before, after = whole(out), contents(out)
    if name == "LUT.json.cells":  # the table has what they held
        assert before.pop(name) != after.pop(name, None)
    assert after == before


def test_all_of_them_at_once(finished, out):
    """But for the cells, by which nothing that was measured is measured again."""
    for i, file in enumerate(AGAIN):
        if file != "LUT.json.cells":
            DAMAGE[tuple(DAMAGE)[i % 3]](out / file)
    assert run_again(out)[0] == finished[1]
    assert contents(out) == whole(out)


@pytest.mark.parametrize("part, of", [("retrain.part.npz", "weights.npz"), ("search.part.npz", "search.npz")])
def test_a_truncated_checkpoint_is_not_the_end(finished, out, part, of):
    folder = out / "points" / SEARCHED
    (folder / of).rename(folder / part)
    truncated(folder / part)
    result, _, lines = run_again(out)
    assert result == finished[1] and contents(out) == whole(out)
    assert len(lines) == 2 and lines[0].startswith(f"{folder / of} is missing")
    assert lines[1] == f"{folder / part} is damaged: what it was the middle of begins anew"


def test_other_bytes_are_not_taken_for_what_was_measured(out):
    """A bundle that comes out otherwise, as from a compiler that is not this one's, is measured and checked anew."""
    truncated(out / "points" / SEARCHED / "model.mpc")
    sweeping = sweep(out, config=SMALL)
    made = sweeping.device.compile

    def slower(model, bundle, table):
        made(model, bundle, table)
        bundle.write_text(json.dumps(2 * json.loads(bundle.read_text())))

    sweeping.device.compile = slower
    points = {p.name: p.measured for p in sweeping.run().points}
    assert points[SEARCHED] == json.loads((out / "points" / SEARCHED / "model.mpc").read_text())
    done = (out / "device.log").read_text().splitlines()
    asked = {f"{what} {SEARCHED}" for what in ("compile", "network_seconds", "answers", "verify", "profile")}
    assert asked <= set(done) and any(line.startswith("race") for line in done)


@pytest.mark.parametrize("how", DAMAGE)
def test_the_copy_of_the_configuration(tmp_path, how):
    """Its hash is in run.json: a damaged copy is not taken for another run. (A device of another kind ends this one.)"""
    config, out, lines = tmp_path / "a.toml", tmp_path / "run", []
    config.write_text("seed = 1\n")
    known = hashlib.sha256(config.read_bytes()).hexdigest()
    Folder(out).write("run.json", {"config_sha256": known, "device": {"cpu": "another formula"}})
    (out / "config.toml").write_bytes(config.read_bytes())
    DAMAGE[how](out / "config.toml")
    with pytest.raises(UsageError, match="another formula"):
        run(config, SMALL, out, SimulatedDevice(), warn=lines.append)
    why = "is missing" if how == "deleted" else "is damaged"
    assert lines == [f"{out / 'config.toml'} {why}: it is written again from {config}"]


def test_a_folder_that_is_somebody_elses_keeps_its_hidden_files(tmp_path):
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".settings.json").write_text("{}")
    with pytest.raises(UsageError, match="not empty"):
        run(tmp_path / "a.toml", SMALL, tmp_path / "home", SimulatedDevice())
    assert (tmp_path / "home" / ".settings.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '{"a": 1, "sha256": 3}',
        '{"a": 1, "sha256": "00"}',
        "[1]",
        "",
        "{",
        "\x00\x00",
        "[" * 100_000,
        "\udcff",
    ],
)
def test_json_that_is_not_what_was_written_is_none(tmp_path, text):
    lines = []
    folder = Folder(tmp_path, lines.append)
    folder.write("a.json", {"a": 1, "numbers": {2: 0.1, 10: None}, "pair": (1, "é")})
    assert folder.read("a.json") == {"a": 1, "numbers": {"2": 0.1, "10": None}, "pair": [1, "é"]} and not lines
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    assert folder.read("a.json") is None
    assert lines == [f"{tmp_path / 'a.json'} is damaged: it counts as if it were not there"]
    assert folder.read("b.json") is None and len(lines) == 1


def test_a_step_is_kept_with_its_files(tmp_path):
    lines, made = [], []
    folder = Folder(tmp_path, lines.append)

    def work():
        made.append(1)
        for name in ("one", "two"):
            (tmp_path / name).write_text(name)
        return {"times": len(made)}

    def step(key="key", files=("one", "two")):
        return folder.once("step.json", key, work, files=files)["times"]

    assert step() == step() == 1
    (tmp_path / "one").write_text("uno")
    assert step() == 2 and lines.pop() == f"{tmp_path / 'one'} holds other bytes than were written: it is made again"
    (tmp_path / "two").write_text("tw")
    assert step() == 3 and lines.pop() == f"{tmp_path / 'two'} has 2 bytes, not 3: it is made again"
    (tmp_path / "two").unlink()
    assert step() == 4 and lines.pop() == f"{tmp_path / 'two'} is missing: it is made again"
    assert step(files=("one",)) == step(files=("one",)) == 5 and not lines  # another list of files
    assert step("other", ("one",)) == step("other", ("one",)) == 6 and not lines
