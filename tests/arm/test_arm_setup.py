""".ci/setup-arm and .ci/arm-root where something fails or is killed: one line, another exit code, nothing that looks
finished; and two at once. In a copy, with stand-ins for the tools that download; what they do in earnest `make test-arm`
has done before these tests run."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE

pytestmark = pytest.mark.quick
ROOT = Path(__file__).parents[2]
STAND_INS = {
    "bin/apt-get": "#!/bin/sh\n@apt@\n",
    "bin/dpkg-deb": '#!/bin/sh\nmkdir -p "$3/usr/bin" && touch "$3/usr/bin/python3.11"\n',
    "venv/bin/python": f'#!/bin/sh\ncase "$*" in *" download "*) @pip@ ;; *) exec {sys.executable} "$@" ;; esac\n',
}
FAILURES = {
    "apt": (
        {"apt": 'case "$*" in *" install "*) echo "E: Failed to fetch a.deb"; echo "E: more"; exit 100 ;; esac'},
        "apt-get install: E: Failed to fetch a.deb",
    ),
    "apt killed": ({"apt": 'case "$*" in *" install "*) kill -9 $$ ;; esac'}, "apt-get install was killed (signal 9)"),
    "pip": (
        {"pip": 'echo "WARNING: connection broken" >&2; echo "ERROR: more" >&2; exit 1'},
        "pip download: WARNING: connection broken",
    ),
    "pip killed": ({"pip": "kill -9 $$"}, "pip download was killed (signal 9)"),
    "pip silent": ({"pip": "exit 3"}, "pip download: it ended with 3 and no reason"),
}


def start(folder: Path, commands: dict[str, str]) -> subprocess.Popen:
    """.ci/setup-arm of a copy in `folder`, whose tools do `commands`."""
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name, text in STAND_INS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for tool in ("apt", "pip"):
            text = text.replace(f"@{tool}@", commands.get(tool, ":"))
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return subprocess.Popen(
        ["bash", folder / ".ci" / "setup-arm", "venv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"},
    )


@pytest.mark.parametrize("failure", FAILURES)
def test_what_fails_is_one_line(failure, tmp_path):
    commands, says = FAILURES[failure]
    process = start(tmp_path, commands)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert error.splitlines() == [f"the arm64 system in .arm was not made: {says}"]
    assert not {"made", "pyarm", "root"} & set(os.listdir(tmp_path / ".arm"))


def test_a_second_one_waits(tmp_path):
    """As for what a killed one left at work, which holds the lock until it ends."""
    (tmp_path / ".arm").mkdir()
    with open(tmp_path / ".arm" / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(tmp_path, FAILURES["pip"][0])
        assert process.stdout.readline().startswith("Another set-up")
        assert os.listdir(tmp_path / ".arm") == ["setup.lock"]
    output, error = process.communicate(timeout=PATIENCE)
    assert output.startswith("Making an arm64 system") and FAILURES["pip"][1] in error and process.returncode == 1
