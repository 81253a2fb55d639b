"""Every tutorial, from its first line of code to its last, in an empty folder, as a newcomer would type it."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.examples.documents import PAGES, ROOT, TUTORIALS
from tests.patience import PATIENCE

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OURS = {"mpcompile": ("-m", "mpcompile"), "python": ()}
"""Command → how it is started by this Python. `pip` is what set this environment up; all else is an error."""


def run(line: str) -> str:
    """What a line of a shell prints."""
    command, *arguments = shlex.split(line, comments=True)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *OURS[command], *arguments],
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def matches(expected: str, printed: str) -> bool:
    """Whether that was printed; … stands for anything."""
    pieces = (re.escape(piece) for piece in re.sub(r"\s+", " ", expected).strip().split("…"))
    return re.fullmatch(".*?".join(pieces), re.sub(r"\s+", " ", printed).strip()) is not None


@pytest.mark.parametrize("page", TUTORIALS)
def test_the_tutorial_works(page, tmp_path, monkeypatch, capsys):
    text, names, printed = PAGES[page].read_text(), {}, ""
    if "torch" in text:
        pytest.importorskip("torch")
    if "brevitas" in text.lower() and "import brevitas" in text:
        pytest.importorskip("brevitas")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for language, options, code in BLOCK.findall(text):
        title = re.search(r'title="([\w.]+)"', options)
        if language == "sh":
            lines = [line for line in code.splitlines() if not line.startswith("pip install")]
            printed = "".join(map(run, lines))
            ran += len(lines)
        elif language == "python":
            exec(compile(code, page, "exec"), names)
            printed = capsys.readouterr().out
            ran += 1
        elif title:
            (tmp_path / title[1]).write_text(code)
        else:
            assert language == "text" and matches(code, printed), f"{code}\nis not what was printed:\n{printed}"
    assert ran >= 3


def test_what_was_printed_is_compared():
    assert matches("a …\nb", "a 12 s\n  b\n") and not matches("a … b", "a 12 s") and not matches("a", "ab")
