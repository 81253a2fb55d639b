"""README and CONTRIBUTING say what the code does: their commands parse, their code runs, their lists are the code's."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from mpcompile.cli import VERBS, parser
from mpcompile.kernels.select import expected_family, expected_gain
from mpcompile.search.config import read as read_config
from mpcompile.targets import load_target

ROOT = Path(__file__).parents[2]
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
MODEL = ROOT / "tests" / "data" / "ort_qdq_int8.onnx"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def part(text: str, name: str) -> str:
    return re.search(rf"<!-- {name}\b[^>]*-->\n(.*?)<!-- /{name} -->", text, re.DOTALL)[1]


WALK = ROOT / "examples" / "raspberry_pi" / "README.md"
"""Its lines that begin with `pi$` are typed on the board, where mpcompile is in an environment of its own."""


def commands(text: str) -> list[str]:
    lines = [
        line.strip().removeprefix("pi$ ").removeprefix("mp/bin/")
        for block in re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith("mpcompile ")]


COMMANDS = commands(README)
ON_A_PI = commands(WALK.read_text())


@pytest.mark.parametrize("line", ON_A_PI)
def test_commands_of_the_walk_through_parse(line):
    args = parser().parse_args(shlex.split(line, comments=True)[1:])
    assert args.verb in VERBS
    if getattr(args, "target", None):
        assert load_target(args.target).arch in ("aarch64", "armv7l")


def test_the_walk_through_is_whole(tmp_path):
    verbs = {line.split()[1] for line in ON_A_PI}
    assert verbs >= {"doctor", "tracker", "serve", "devices", "profile", "tune", "search", "compile", "run", "bench"}
    (config,) = blocks(WALK.read_text(), "toml")
    (tmp_path / "search.toml").write_text(config)
    found = read_config(tmp_path / "search.toml")
    assert found.measure.target == "rpi4b" and found.measure.key == "rpi4b" and found.measure.tracker


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


def test_every_example_is_run_by_a_test_and_named():
    scripts = {p.name for p in (ROOT / "examples").rglob("*.py")}
    tests = "".join(p.read_text() for p in Path(__file__).parent.glob("*.py"))
    assert scripts and all(f'"{name}"' in tests for name in scripts)
    assert {p.name for p in (ROOT / "examples" / "compile_your_own").iterdir() if p.is_file()} == set(
        re.findall(r"^\| [^|]+ \| `(\w+\.py)`", README, re.MULTILINE)
    )


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_files_that_are_named_exist(text):
    made = ("runs/", "RUN_DIR/", "benchmarks/results", "path/", ".venv")
    named = {
        name
        for name in re.findall(r"`([\w.]+(?:/[\w.]+)+)/?`", text)
        if not name.startswith(made) and "NAME" not in name
    }
    rooms = [ROOT, ROOT / "mpcompile", ROOT / "mpcompile" / "frontend", ROOT / "examples" / "compile_your_own"]
    assert named
    for name in named:
        assert any((room / name).exists() for room in rooms), name


def test_the_boards_are_the_codes():
    """Read from the table's text: what a reader finds there is what `mpcompile targets` says."""
    tables = re.split(r"^\| (rpi\w+) \|", part(README, "boards"), flags=re.MULTILINE)[1:]
    boards = dict(zip(tables[::2], tables[1::2]))
    assert list(boards) == ["rpi3b", "rpi4b", "rpi5"]
    for board, text in boards.items():
        target, found = load_target(board), {}
        columns = re.findall(r"A(\d)", text.splitlines()[0])
        for w, cells in re.findall(r"^\| W(\d) \|(.*)\|$", text, re.MULTILINE):
            found |= {(int(w), int(a)): cell.strip() for a, cell in zip(columns, cells.split("|"), strict=True)}
        bits = (1, 2, 3, 4, 8)
        assert found == {
            (w, a): f"{expected_family(target, w, a)} {expected_gain(target, w, a):.1f}" for w in bits for a in bits
        }
        assert text.strip() in (ROOT / "benchmarks" / "results" / "arm.md").read_text()


def test_make_bench_brings_its_tables_into_the_readme():
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert [line.split("python ")[1] for line in recipe.splitlines()] == ["-m benchmarks", "-m benchmarks.readme"]


def test_tables_are_written_between_their_marks(tmp_path, capsys):
    from benchmarks.readme import main

    readme, results, report = tmp_path / "README.md", tmp_path / "results", tmp_path / "report.json"
    results.mkdir()
    readme.write_text(README)
    assert main(["--readme", str(readme), "--results", str(results), "--report", str(report)]) == 2
    assert readme.read_text() == README
    (results / "summary.md").write_text("| a table |\n")
    (tmp_path / "other.md").write_text("no marks here\n")
    assert main(["--readme", str(tmp_path / "other.md"), "--results", str(results), "--report", str(report)]) == 2
    assert "<!-- boards -->" in capsys.readouterr().err
    (results / "networks.md").write_text("| networks |\n")
    report.write_text(
        json.dumps(
            {
                "run": {
                    "data": {"name": "digits", "train": 900, "test": 360, "image": [1, 32, 32]},
                    "machine": {"cpu": "a CPU", "threads": 1},
                },
                "headline": "One beats another.",
                "summary": ["All are exact."],
                "points": [{"name": "uniform-w2a2", "accuracy": 0.5}, {"name": "target-1ms", "accuracy": 1.0}],
                "derived": {
                    "uniform-w2a2": {"label": "W2A2", "seconds": 3e-4, "faster_than_int8": None},
                    "target-1ms": {"label": "search 1 ms", "seconds": 2e-4, "faster_than_int8": 1.5},
                },
            }
        )
    )
    assert main(["--readme", str(readme), "--results", str(results), "--report", str(report)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[1].split()[0] for line in said] == ["summary", "networks", "search", "demo", "boards"]
    assert said[2].endswith("(python -m benchmarks.search_figures writes it)") and "left as it was" in said[2]
    assert sum("left as it was" in line for line in said) == 1 and part(readme.read_text(), "search") == part(
        README, "search"
    )
    assert (
        main(["--readme", str(readme), "--results", str(results), "--report", str(report)]) == 0
    )  # again: nothing piles up
    text = readme.read_text()
    assert part(text, "summary").strip() == "| a table |" and part(text, "networks").strip() == "| networks |"
    demo = part(text, "demo")
    assert demo.endswith("| search 1 ms | 100.0% | 200 µs | 1.50× |\n| W2A2 | 50.0% | 300 µs |  |\n\n")
    assert "a CPU, 1 thread; digits, 32×32" in demo and "One beats another. All are exact." in demo
    assert part(text, "boards") == part(README, "boards")
    assert (
        text.split("## Install")[1].split("## Performance")[0]
        == README.split("## Install")[1].split("## Performance")[0]
    )
