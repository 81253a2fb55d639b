"""Tuning as a process that is killed, or interrupted: nothing measured is lost or measured twice, nothing stays."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import psutil
import pytest

from benchmarks.networks import Bits, ConvShape, conv_layer
from tests.patience import PATIENCE, until
from tests.remote.served import Farm

TARGET = "x86-64-v2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    conv_layer(ConvShape(32, 8, 32), Bits(1, 1)).save(path)
    return path


def command(model, folder, options) -> list:
    return [
        sys.executable,
        "-m",
        "mpcompile",
        "tune",
        model,
        "--target",
        TARGET,
        "--trials",
        "4",
        "-o",
        folder,
        "--json",
        folder.parent / "found.json",
        *options,
    ]


def started(tmp_path, arguments) -> subprocess.Popen:
    """Sessions' folders are in `tmp_path`, so that its processes can be told from others."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    with open(tmp_path / "out.txt", "w") as out:
        return subprocess.Popen(arguments, stdout=out, stderr=out, env=os.environ | {"TMPDIR": str(tmp_path / "tmp")})


def until_measured(tmp_path, process, trials) -> None:
    def ended() -> str:
        return "" if process.poll() is None else f"it ended: {(tmp_path / 'out.txt').read_text()}"

    until(lambda: trials.exists() and b"\n" in trials.read_bytes(), PATIENCE, pause=0.02, unless=ended)
    assert not ended()


def rows(trials) -> list[dict]:
    """All that are whole."""
    return [json.loads(line) for line in trials.read_text().splitlines(keepends=True) if line.endswith("}\n")]


def nothing_runs(folder) -> bool:
    """Whether, in the end, no process is left that has this folder in its command line."""
    return until(
        lambda: not any(str(folder) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])),
        pause=0.2,
    )


@pytest.mark.parametrize("where", ["here", "two devices"])
def test_killed_and_started_again(where, model, tmp_path):
    trials = tmp_path / "records" / f"{TARGET}.trials.jsonl"
    with Farm() if where != "here" else nullcontext() as farm:
        if farm:
            farm.serve()
            farm.serve()
            farm.wait(2)
        arguments = command(model, tmp_path / "records", farm.options if farm else [])
        process = started(tmp_path, arguments)
        until_measured(tmp_path, process, trials)
        process.kill()
        process.wait()
        kept = rows(trials)
        assert kept and not (tmp_path / "found.json").exists()
        with open(trials, "a") as file:
            file.write('{"key": "cut sho')  # as if it had been killed while it wrote
        assert nothing_runs(tmp_path / "tmp")
        again = started(tmp_path, arguments)
        assert again.wait(PATIENCE) == 0, (tmp_path / "out.txt").read_text()
    found = json.loads((tmp_path / "found.json").read_text())
    after = [r for r in map(_parsed, trials.read_text().splitlines()) if r]
    assert after[: len(kept)] == kept and len({r["key"] for r in after}) == len(after)
    assert (found["trials"], found["trials_on_disk"]) == (len(after) - len(kept), len(kept))
    assert {layer["trials"] for layer in found["layers"]} and all(r["cost"] for r in after if not r["why"])
    assert nothing_runs(tmp_path / "tmp")


def test_interrupted(model, tmp_path):
    process = started(tmp_path, command(model, tmp_path / "records", []))
    until_measured(tmp_path, process, tmp_path / "records" / f"{TARGET}.trials.jsonl")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130 and "Traceback" not in (tmp_path / "out.txt").read_text()
    assert nothing_runs(tmp_path / "tmp") and not list((tmp_path / "tmp").iterdir())


def test_the_second_of_two_is_told_which_process_tunes(model, tmp_path):
    """The first is stopped in the middle for as long as the second takes; then it goes on, and makes each trial once."""
    records = tmp_path / "records"
    trials = records / f"{TARGET}.trials.jsonl"
    first = started(tmp_path, command(model, records, []))
    try:
        until_measured(tmp_path, first, trials)
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(command(model, records, []), capture_output=True, text=True, timeout=PATIENCE)
        says = f"another process ({first.pid}) writes to {records}: wait for it, or name another folder"
        assert (second.returncode, second.stderr) == (2, f"mpcompile: {says}\n")
        first.send_signal(signal.SIGCONT)
        assert first.wait(PATIENCE) == 0, (tmp_path / "out.txt").read_text()
    finally:
        first.kill()
    keys = [row["key"] for row in rows(trials)]
    assert len(keys) == len(set(keys))
    assert nothing_runs(tmp_path / "tmp")


def _parsed(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
