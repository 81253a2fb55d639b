"""README, CONTRIBUTING and docs/ say what the code does: their commands parse, their code runs, their lists are the
code's, their links lead somewhere."""

import ast
import json
import re
import shlex
import shutil
import tomllib

import pytest

from docs.generate import PARTS
from docs.generate.keys import annotated
from docs.generate.verbs import subparsers
from mpcompile.cli import VERBS, parser
from mpcompile.kernels.select import expected_family, expected_gain
from mpcompile.search import config
from mpcompile.targets import board, list_fleets, list_targets, load_target
from tests.examples.documents import CONTRIBUTING, DOCS, PAGES, README, ROOT, WALK, blocks, commands, part

MODEL = ROOT / "tests" / "data" / "ort_qdq_int8.onnx"
URL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
ARM = DOCS / "performance" / "arm.md"
ON_A_PI = commands(WALK.read_text())
COMMANDS = sorted({line for path in PAGES.values() if path != WALK for line in commands(path.read_text())})


@pytest.mark.parametrize("line", ON_A_PI)
def test_commands_of_the_walk_through_parse(line):
    args = parser().parse_args(shlex.split(line, comments=True)[1:])
    assert args.verb in VERBS
    if getattr(args, "target", None):
        assert load_target(args.target).arch in ("aarch64", "armv7l")


def test_the_walk_through_is_whole(tmp_path):
    verbs = {line.split()[1] for line in ON_A_PI}
    assert verbs >= {"doctor", "tracker", "serve", "devices", "profile", "tune", "search", "compile", "run", "bench"}
    (text,) = blocks(WALK.read_text(), "toml")
    (tmp_path / "search.toml").write_text(text)
    found = config.read(tmp_path / "search.toml")
    assert found.measure.target == "rpi4b" and found.measure.key == "rpi4b" and found.measure.tracker


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    assert parser().parse_args(shlex.split(line, comments=True)[1:]).verb in VERBS


def test_the_verbs_are_all_there():
    listed = re.findall(r"^\| \[`([a-z]+)`\]", PARTS["verb-list"](), re.MULTILINE)
    sections = re.split(r"^## (\w+)$", PARTS["verbs"](), flags=re.MULTILINE)[1:]
    told = dict(zip(sections[::2], sections[1::2]))
    assert sorted(listed) == sorted(told) == sorted(VERBS) and len(commands(README.read_text())) >= 5
    for verb, sub in subparsers().items():
        options = {o for action in sub._actions for o in action.option_strings if o.startswith("--")}
        assert options - {"--help", "--json", "--debug"} <= set(re.findall(r"`(--[a-z-]+)`", told[verb])), verb
        positional = [a.metavar or a.dest for a in sub._actions if not a.option_strings]
        assert all(f"| `{name}` |" in told[verb] for name in positional), verb
    page = (DOCS / "reference" / "verbs.md").read_text()
    assert all(f"<!-- generate: {name} -->" in page for name in ("verb-list", "verbs", "exit-codes"))


def test_the_exit_codes_are_the_errors():
    from mpcompile import errors

    told = {int(code) for code in re.findall(r"^\| (\d+) \|", PARTS["exit-codes"](), re.MULTILINE)}
    own = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.MpError)}
    assert told >= own | {0, 1, 70, 130, 141, 143}


@pytest.mark.parametrize("page", [p for p in PAGES if "tutorials" not in p and blocks(PAGES[p].read_text(), "python")])
def test_python_runs(page, tmp_path, monkeypatch):
    """Tutorials are run whole by test_tutorials.py."""
    shutil.copy(MODEL, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    code = blocks(PAGES[page].read_text(), "python")
    for block in code:
        exec(compile(block, page, "exec"), {})
    for call, made in (("mp.compile(", "model.mpc"), ("export_library(", "model.so")):
        assert call not in "".join(code) or (tmp_path / made).exists()


def test_some_pages_have_python():
    assert all(blocks(p.read_text(), "python") for p in (README, DOCS / "howto" / "compile.md"))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(PAGES[p].read_text(), "toml")])
def test_searches_are_sound(page, tmp_path):
    for text in blocks(PAGES[page].read_text(), "toml"):
        (tmp_path / "search.toml").write_text(text)
        assert config.read(tmp_path / "search.toml").budgets()


def test_the_operators_are_the_frontends():
    from mpcompile.frontend import importer, source  # noqa: F401  (source loads every handler)
    from mpcompile.frontend.qoperator import EXPANSIONS

    known = {name for qonnx, name in importer._HANDLERS if not qonnx and not name.endswith("quantizeLinear")}
    real, on_codes = (text.replace("\n", " ") for text in PARTS["operators"]().split("\n\n"))
    assert {name.strip() for name in real.split(",")} == known - {"QuantizeLinear"}
    assert {name.strip() for name in on_codes.split(":")[1].split(",")} == {name for _, name in EXPANSIONS}
    assert "<!-- generate: operators -->" in (DOCS / "reference" / "supported.md").read_text()


def test_the_operators_in_float_are_those_that_were_compiled():
    """The page says what is written down; tests/frontend and tests/compile compare that with what passes."""
    told = json.loads((DOCS / "generate" / "onnx_backend.json").read_text())
    shown = dict(re.findall(r"`(\w+)` (\d+)", PARTS["float-operators"]().replace("\n", " ")))
    assert {name: str(t["compiled"]) for name, t in told.items() if t["compiled"]} == shown and len(shown) > 60
    assert "<!-- generate: float-operators -->" in (DOCS / "reference" / "supported.md").read_text()


def test_the_boards_that_ship_are_listed():
    listed = re.findall(r"^\| `([\w-]+)` \|", PARTS["boards"](), re.MULTILINE)
    assert sorted(listed) == sorted({*list_targets(), *list_fleets()} - {"native"})
    assert "<!-- generate: boards -->" in (DOCS / "reference" / "supported.md").read_text()


def test_the_annotated_board_loads(tmp_path):
    """It is shown in the reference, and its comments are what each key is said to mean there."""
    (tmp_path / "board.toml").write_text(annotated(board))
    assert load_target(tmp_path / "board.toml").cores == 4
    keys = re.findall(r"^\| `(\w+)` \|", PARTS["board-keys"](), re.MULTILINE)
    assert set(keys) == set(tomllib.loads(annotated(board)))


def test_the_annotated_search_loads(tmp_path):
    (tmp_path / "search.toml").write_text(annotated(config))
    assert len(config.read(tmp_path / "search.toml").budgets()) == 3
    given = tomllib.loads(annotated(config))
    tables = [table for table in given.values() if isinstance(table, dict)]
    tables += [inner for table in tables for inner in table.values() if isinstance(inner, dict)]
    keys = [key for table in tables for key, value in table.items() if not isinstance(value, dict)]
    assert sorted(re.findall(r"^\| `(\w+)` \|", PARTS["search-keys"](), re.MULTILINE)) == sorted(
        [*keys, "seed", "module"]
    )


@pytest.mark.parametrize("name", ["board-keys", "search-keys"])
def test_the_annotated_files_give_the_defaults_or_something_else_that_is_valid(name):
    """The column `left out` is the code's default: it is JSON, or the key is required."""
    for cell in re.findall(r"^\| `\w+` \| [^|]+ \| ([^|]+) \|", PARTS[name](), re.MULTILINE):
        assert cell == "required" or json.loads(cell.strip("`")) is not None


def test_every_example_is_run_by_a_test_and_named():
    """Beside scripts lie the modules that they are made of."""
    scripts = {p.name for p in (ROOT / "examples").rglob("*.py") if "__main__" in p.read_text()}
    folders = [ROOT / "tests" / name for name in ("examples", "relax", "relay")]
    tests = "".join(p.read_text() for folder in folders for p in folder.glob("*.py"))
    assert scripts and all(f'"{name}"' in tests for name in scripts)
    page = (DOCS / "howto" / "compile.md").read_text()
    assert {p.name for p in (ROOT / "examples" / "compile_your_own").iterdir() if p.is_file()} == set(
        re.findall(r"^\| [^|]+ \| `(\w+\.py)`", page, re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    made = ("runs/", "run/", "RUN_DIR/", "benchmarks/results", "path/", ".venv", "mp/", "soc", "train/")
    named = {
        name
        for name in re.findall(r"`([\w.]+(?:/[\w.]+)+)/?`", PAGES[page].read_text())
        if not name.startswith(made) and "NAME" not in name
    }
    rooms = [ROOT, ROOT / "mpcompile", ROOT / "mpcompile" / "frontend", ROOT / "examples" / "compile_your_own"]
    assert named or page not in ("CONTRIBUTING.md", "docs/explanation/formats.md")
    for name in named:
        assert any((room / name).exists() for room in rooms), name


def test_modules_that_are_named_exist():
    """Or are operators, which TVM's IRs know by such names."""
    operators = "".join(p.read_text() for p in (ROOT / "mpcompile" / "tvm_frontend").rglob("*.py"))
    for page, path in PAGES.items():
        for name in re.findall(r"`(mpcompile(?:\.\w+)+)`", path.read_text()):
            if f'"{name}"' in operators:
                continue
            parts = name.split(".")
            place = ROOT.joinpath(*parts)
            if place.with_suffix(".py").exists() or place.is_dir():
                continue
            holder = place.parent.with_suffix(".py")  # what a module defines
            assert holder.exists(), f"{page}: {name}"
            defined = {getattr(node, "name", "") for node in ast.parse(holder.read_text()).body}
            assert parts[-1] in defined, f"{page}: {name}"


def test_readme_is_short_and_its_links_are_whole():
    """As a package index shows it: links with the address that pyproject.toml names, to what the repository has."""
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    for link in links:
        found = re.fullmatch(rf"{re.escape(URL)}/(blob|tree)/main/([^#]+)", link)
        assert found, link
        assert (ROOT / found[2]).is_dir() == (found[1] == "tree") and (ROOT / found[2]).exists(), link
    others = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert all(link.startswith(URL) for link in others.values())


def test_the_address_stands_in_two_files_only():
    """In pyproject.toml, and in README, where the test before this one compares them."""
    files = [p for p in ROOT.iterdir() if p.is_file()] + [
        p for folder in ("docs", "mpcompile", "examples") for p in (ROOT / folder).rglob("*") if p.is_file()
    ]
    texts = {p.name for p in files if p.suffix in (".md", ".py", ".toml", ".yml", ".in") and URL in p.read_text()}
    assert texts == {"pyproject.toml", "README.md"}


def test_the_boards_are_the_codes():
    """Read from the table's text: what a reader finds there is what `mpcompile targets` says."""
    tables = re.split(r"^\| (rpi\w+) \|", part(ARM.read_text(), "boards"), flags=re.MULTILINE)[1:]
    boards = dict(zip(tables[::2], tables[1::2]))
    assert list(boards) == ["rpi3b", "rpi4b", "rpi5"]
    for board_name, text in boards.items():
        target, found = load_target(board_name), {}
        columns = re.findall(r"A(\d)", text.splitlines()[0])
        for w, cells in re.findall(r"^\| W(\d) \|(.*)\|$", text, re.MULTILINE):
            found |= {(int(w), int(a)): cell.strip() for a, cell in zip(columns, cells.split("|"), strict=True)}
        bits = (1, 2, 3, 4, 8)
        assert found == {
            (w, a): f"{expected_family(target, w, a)} {expected_gain(target, w, a):.1f}" for w in bits for a in bits
        }
        assert text.strip() in (ROOT / "benchmarks" / "results" / "arm.md").read_text()


@pytest.mark.parametrize("page, name", [("index", "summary"), ("index", "networks"), ("search", "search")])
def test_measured_tables_are_the_results(page, name):
    text = (DOCS / "performance" / f"{page}.md").read_text()
    assert part(text, name).strip() == (ROOT / "benchmarks" / "results" / f"{name}.md").read_text().strip()


def test_readme_s_figures_are_the_results():
    from benchmarks.whole_networks import ratios

    results = json.loads((ROOT / "benchmarks" / "results" / "networks.json").read_text())
    assert part(README.read_text(), "figures").strip() == ratios(results).strip()
    assert ratios(results).count("\n") == len(results) + 2


def test_make_bench_brings_its_tables_into_the_pages():
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert [line.split("python ")[1] for line in recipe.splitlines()] == ["-m benchmarks", "-m benchmarks.pages"]


def test_tables_are_written_between_their_marks(tmp_path, capsys):
    from benchmarks.pages import main

    root, results, report = tmp_path / "root", tmp_path / "results", tmp_path / "report.json"
    results.mkdir()
    shutil.copytree(DOCS / "performance", root / "docs" / "performance")
    shutil.copy(README, root)

    def write() -> int:
        return main(["--root", str(root), "--results", str(results), "--report", str(report)])

    def texts() -> dict[str, str]:
        return {p.name: p.read_text() for p in [root / "README.md", *(root / "docs" / "performance").iterdir()]}

    before = texts()
    assert write() == 2 and texts() == before
    (results / "summary.md").write_text("| a table |\n")
    (root / "docs" / "performance" / "arm.md").write_text("no marks here\n")
    assert write() == 2
    assert "<!-- boards -->" in capsys.readouterr().err and texts() == before | {"arm.md": "no marks here\n"}
    shutil.copy(ARM, root / "docs" / "performance")
    (results / "networks.md").write_text("| networks |\n")
    result = {"network": "resnet18", "input": [3, 224, 224], "vs": {"W1A1": {"int8": 3.456}, "W8A8": {"int8": 1.0}}}
    (results / "networks.json").write_text(json.dumps([result]))
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
    assert write() == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[1].split()[0] for line in said] == [
        "summary",
        "networks",
        "exported",
        "figures",
        "search",
        "modules",
        "seeds",
        "demo",
        "boards",
    ]
    commands = {2: "exported --write", 4: "search_figures", 5: "tvm_modules", 6: "demo_seeds -o DIR --write"}
    for at, command in commands.items():
        assert said[at].endswith(f"(python -m benchmarks.{command} writes it)") and "left as it was" in said[at]
    assert sum("left as it was" in line for line in said) == 4
    once = texts()
    assert once["search.md"] == before["search.md"] and once["arm.md"] == before["arm.md"]
    assert write() == 0 and texts() == once  # again: nothing piles up
    text = once["index.md"]
    assert part(text, "summary").strip() == "| a table |" and part(text, "networks").strip() == "| networks |"
    assert part(once["README.md"], "figures").strip().splitlines()[2:] == [
        "| ResNet-18 224² | 3.46× |  |  |  | 1.00× |"
    ]
    demo = part(once["demo.md"], "demo")
    assert demo.endswith("| search 1 ms | 100.0% | 200 µs | 1.50× |\n| W2A2 | 50.0% | 300 µs |  |\n\n")
    assert "a CPU, 1 thread; digits, 32×32" in demo and "One beats another. All are exact." in demo
    for name, marks in (("README.md", ["figures"]), ("index.md", ["summary", "networks"]), ("demo.md", ["demo"])):
        strip = re.compile(rf"(<!-- ({'|'.join(marks)})\b[^>]*-->).*?(<!-- /\2 -->)", re.DOTALL)
        assert strip.sub(r"\1\3", once[name]) == strip.sub(r"\1\3", before[name])


def test_contributing_names_every_room_and_is_short():
    text = CONTRIBUTING.read_text()
    assert len(text.splitlines()) < 200
    assert all(f"`{name}`" in text for name in ("unit", "frontend", "kernels", "remote"))
