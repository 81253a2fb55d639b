"""README and CONTRIBUTING say what the code does: their commands parse, their code runs, their lists are the code's."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from mpcompile.cli import VERBS, parser
from mpcompile.targets import load_target

ROOT = Path(__file__).parents[2]
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
MODEL = ROOT / "tests" / "data" / "ort_qdq_int8.onnx"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def part(text: str, name: str) -> str:
    return re.search(rf"<!-- {name}\b[^>]*-->\n(.*?)<!-- /{name} -->", text, re.DOTALL)[1]


COMMANDS = [line for block in blocks(README, "sh") for line in block.splitlines() if line.startswith("mpcompile ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    assert parser().parse_args(shlex.split(line, comments=True)[1:]).verb in VERBS


def test_the_verbs_are_all_there():
    listed = re.findall(r"^\| `([a-z]+)[^`]*` \|", README.split("## Verbs")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(listed) == sorted(VERBS) and len(COMMANDS) >= 5


def test_python_runs(tmp_path, monkeypatch):
    shutil.copy(MODEL, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    code = blocks(README, "python")
    assert code
    for block in code:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "model.mpc").exists()


def test_the_operators_are_the_frontends():
    from mpcompile.frontend import importer, source  # noqa: F401  (source loads every handler)

    known = {name for qonnx, name in importer._HANDLERS if not qonnx and not name.endswith("quantizeLinear")}
    assert {name.strip() for name in part(README, "operators").replace("\n", " ").split(",")} == known - {
        "QuantizeLinear"
    }


def test_the_board_of_contributing_loads(tmp_path):
    (text,) = blocks(CONTRIBUTING, "toml")
    (tmp_path / "board.toml").write_text(text)
    assert load_target(tmp_path / "board.toml").cores == 4


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_files_that_are_named_exist(text):
    made = ("runs/", "benchmarks/results", "path/", ".venv")
    named = {
        name
        for name in re.findall(r"`([\w.]+(?:/[\w.]+)+)/?`", text)
        if not name.startswith(made) and "NAME" not in name
    }
    rooms = [ROOT, ROOT / "mpcompile", ROOT / "mpcompile" / "frontend", ROOT / "examples" / "compile_your_own"]
    assert named
    for name in named:
        assert any((room / name).exists() for room in rooms), name


def test_tables_are_written_between_their_marks(tmp_path):
    from benchmarks.readme import main

    readme, results, report = tmp_path / "README.md", tmp_path / "benchmarks.md", tmp_path / "report.json"
    readme.write_text(README)
    assert main(["--readme", str(readme), "--results", str(results), "--report", str(report)]) == 2
    assert readme.read_text() == README
    results.write_text("| a table |\n")
    report.write_text(
        json.dumps(
            {
                "data": {"name": "digits", "test": 360},
                "machine": {"cpu": "a CPU"},
                "threads": 1,
                "verify": {"summary": "all equal"},
                "accuracy": {"in torch": 0.5, "bundle": 0.25, "other": 1.0},
                "timing": {
                    "timings": {"bundle": {"seconds": 2e-4}, "other": {"seconds": 3e-4}},
                    "ratio": {"other": 1.5},
                },
            }
        )
    )
    assert main(["--readme", str(readme), "--results", str(results), "--report", str(report)]) == 0
    assert (
        main(["--readme", str(readme), "--results", str(results), "--report", str(report)]) == 0
    )  # again: nothing piles up
    text = readme.read_text()
    assert part(text, "benchmarks").strip() == "| a table |"
    assert "| other | 100.00% | 300 µs | 1.50× |" in part(text, "demo") and "| in torch | 50.00% |  |  |" in part(
        text, "demo"
    )
    assert (
        text.split("## Install")[1].split("## Performance")[0]
        == README.split("## Install")[1].split("## Performance")[0]
    )
