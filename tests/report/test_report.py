"""The report of a run on a simulated device: complete, equal to the run's own numbers, one file, nothing unescaped."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from mpcompile.cli import main
from mpcompile.errors import ModelError, UsageError
from mpcompile.report import findings, words
from mpcompile.report.axes import linear_ticks, positive, shares
from mpcompile.report.page import write_report
from mpcompile.report.read import read
from tests.search.simulated_sweep import sweep

EVIL = "<script>alert('x')</script> & \"co\""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "sweep"
    result = sweep(out).run()
    (out / "config.toml").write_text(f"# {EVIL}\nseed = 2\n")
    return out, result


@pytest.fixture
def run(finished, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(finished[0], tmp_path / "run")


def edit(path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


class Page(HTMLParser):
    """Tags that were closed as they were opened, and every attribute."""

    VOID = {"meta", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(run, tmp_path) -> tuple[str, dict]:
    found = write_report(run, tmp_path / "r.html")
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(found))
    return (tmp_path / "r.html").read_text(), found


def test_every_point_is_there_with_the_runs_own_numbers(finished, tmp_path):
    out, _result = finished
    text, found = page_of(out, tmp_path)
    front = json.loads((out / "front.json").read_text())
    assert {k: found[k] for k in front} == front and set(front) == {"points", "front", "calibration"}
    assert not found["missing"] and found["raced"]
    said = " ".join(Page(text).text)
    for p in front["points"]:
        d = found["derived"][p["name"]]
        assert d["seconds"] == p["raced"] and d["label"] in said and words.time(p["raced"]) in said
        int8 = next(q for q in front["points"] if q["kind"] == "int8")
        assert d["faster_than_int8"] == pytest.approx(int8["raced"] / p["raced"])
    assert found["headline"] in said.replace("\u00a0", " ") and "search 30 %" in said and "W8A8" in said
    assert "equal the exact reference" in said and "a formula" in said and found["run"]["data"]["sha256"] in said


def test_one_file_without_network_or_scripts(finished, tmp_path):
    page = Page(page_of(finished[0], tmp_path)[0])
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert not [a for a in page.attributes if a[0] in ("src", "href", "srcset", "data") or a[0].startswith("on")]
    style = (tmp_path / "r.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert page.tags.count("svg") > 5 and ("role", "img") in page.attributes and "desc" in page.tags


def test_layers_have_bits_predictions_and_measurements(finished, tmp_path):
    out, result = finished
    _, found = page_of(out, tmp_path)
    for p in (p for p in result.points if p.assignment):
        rows = found["layers"][p.name]
        assert {r["name"]: r["predicted"] for r in rows} == p.layers
        assert all(r["measured"] > 0 for r in rows)
        bits = {part["name"]: part["w"] for r in rows for part in r["parts"]}
        assert bits == dict(p.assignment.weights)
    known = [p for p in result.points if p.measured]
    errors = sorted(abs(p.raw / p.measured - 1) for p in known)
    assert errors[0] <= found["prediction"]["networks_raw"] <= errors[-1]


def test_what_comes_from_files_is_escaped(run, tmp_path):
    edit(run / "run.json", lambda d: (d["data"].update(name=EVIL), d["machine"].update(cpu=EVIL), d.update(name=EVIL)))
    edit(run / "race.json", lambda d: d["result"].update(note=EVIL))
    edit(run / "points/target-30pc/checked.json", lambda d: d["result"]["profile"]["layers"][0].update(name=EVIL))
    page = Page(page_of(run, tmp_path)[0])
    assert "script" not in page.tags and sum(EVIL in text for text in page.text) >= 5


def test_a_bundle_that_is_not_exact_is_said_first(run, tmp_path):
    wrong = {"equal": False, "samples": 1, "summary": "first difference: stem"}
    edit(run / "points/target-30pc/checked.json", lambda d: d["result"].update(verify=wrong))
    text, found = page_of(run, tmp_path)
    assert any(s.startswith("NOT EXACT: target-30pc") for s in found["summary"])
    assert 'class="warning">NOT EXACT' in text and "equal the exact reference" not in text


@pytest.mark.parametrize("keep", [0, 1, 3, 5])
def test_an_unfinished_run_says_what_is_missing(run, tmp_path, capsys, keep):
    """As a kill leaves it: some points, no race, perhaps nothing but the record."""
    (run / "race.json").unlink()

    def cut(data):
        data["points"] = [{**p, "raced": None} for p in data["points"][:keep]]
        data["front"] = [n for n in data["front"] if n in {p["name"] for p in data["points"]}]

    edit(run / "front.json", cut)
    if not keep:
        (run / "front.json").unlink()
        (run / "phases.json").unlink()
        (run / "config.toml").unlink()
    assert main(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    said, text = capsys.readouterr().out, (tmp_path / "r.html").read_text()
    Page(text)
    assert "This run is not finished" in text and "the race of all points" in said and "point target-30pc" in said
    assert ("No searched network" in said) == (keep < 5)


def test_the_same_rules_whoever_wins(run, tmp_path):
    """The headline takes the pair nearest in latency, also where the searched network loses."""

    accuracy = {"uniform-w1a1": 0.9, "float": 1.0, "int8": 1.0}
    raced = {"uniform-w1a1": 1e-3, "target-30pc": 1.01e-3, "int8": 4e-3, "uniform-w8a8": 7e-3}

    def lose(data):
        for p in data["points"]:
            p["accuracy"], p["raced"] = accuracy.get(p["name"], 0.5), raced.get(p["name"], 5e-3)

    edit(run / "front.json", lose)
    found = findings.report(read(run))
    assert found["headline"].startswith(
        "At the latency of uniform W1A1 (1.00 ms) the searched network (1.01 ms) has 50.0 % against 90.0 %; "
    )
    assert "3.96× as fast as ONNX Runtime int8" in found["headline"] and "50.0 points less" in found["headline"]
    assert found["summary"][0].startswith("1 of 2 uniform networks is beaten by a searched one")
    assert "2 of 2 searched networks are beaten by a uniform one" in found["summary"][0]
    assert found["beaten"]["uniform"] == ["uniform-w8a8"] and len(found["beaten"]["searched"]) == 2
    assert found["against_uniform"][0] == {
        "uniform": "uniform-w1a1",
        "no_slower": None,
        "accuracy_gain": None,
        "no_less_accurate": None,
        "speedup": None,
    }


def test_networks_of_the_same_bits_do_not_beat_each_other(run):
    """Which of them is faster is the race's noise."""

    def same(data):
        one, other = (next(p for p in data["points"] if p["name"] == n) for n in ("uniform-w1a1", "target-30pc"))
        other.update(accuracy=one["accuracy"], raced=0.5 * one["raced"], assignment=one["assignment"])

    edit(run / "front.json", same)
    known = read(run)
    one, other = (next(p for p in known.points if p["name"] == n) for n in ("uniform-w1a1", "target-30pc"))
    assert not findings.beats(other, one, known) and not findings.beats(one, other, known)
    assert findings.beats({**other, "assignment": None}, one, known)


@pytest.mark.parametrize(
    "break_it, error, said",
    [
        (lambda run: shutil.rmtree(run), UsageError, "there is no folder"),
        (lambda run: (run / "run.json").unlink(), UsageError, "no run of mpcompile search"),
        (lambda run: (run / "run.json").write_text("{"), ModelError, "run.json is damaged"),
        (lambda run: (run / "run.json").write_text('{"mpcompile": "any"}'), ModelError, "format"),
        (lambda run: (run / "front.json").write_text("[]"), ModelError, "front.json is damaged"),
        (lambda run: (run / "race.json").write_text("nonsense"), ModelError, "race.json is damaged"),
        (lambda run: edit(run / "front.json", lambda d: d["points"][0].pop("kind")), ModelError, "none of searched"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(run, tmp_path, capsys, break_it, error, said):
    break_it(run)
    assert main(["report", str(run), "-o", str(tmp_path / "r.html")]) == error.exit_code
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "r.html").exists()


def test_outputs_that_cannot_be(run, tmp_path, capsys):
    before = (run / "front.json").read_text()
    for output, said in (
        (tmp_path / "nowhere" / "r.html", "there is no folder"),
        (tmp_path / "r.json", "another suffix"),
        (run / "front.html", "it is no report"),
        (run, "it is a folder"),
    ):
        assert main(["report", str(run), "-o", str(output)]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    assert (run / "front.json").read_text() == before


def test_from_a_shell_twice(run):
    """Into the run's own folder, without -o; again it replaces its own report."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-m", "mpcompile", "report", run], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr and "report.html" in done.stdout.splitlines()[-1]
    assert (run / "report.html").stat().st_size > 10_000 and read(run).raced


def test_axes():
    assert linear_ticks(0.93, 1.0) == pytest.approx([0.94, 0.96, 0.98, 1.0])
    wide, narrow = positive([1, 20], 0, 100), positive([1.0, 1.5], 0, 100)
    assert {1, 10} < set(wide.ticks) and wide(20) - wide(20**0.5) == pytest.approx(wide(20**0.5) - wide(1), abs=0.1)
    assert narrow(1.25) == pytest.approx(50) and narrow(99) == 100
    log = shares([0.3, 0.9, 1.0], 100, 0, 100)
    assert log(0.3) < log(0.9) < log(0.99) < log(1.0) <= 100
    assert shares([1.0, 1.0], 100, 0, 100)(1.0) <= 100


def test_numbers_in_words():
    assert [words.time(s) for s in (1.2345, 0.00123, 4.5e-7, 0.0)] == ["1.23 s", "1.23 ms", "0.45 µs", "0 µs"]
    assert [words.duration(s) for s in (59.94, 61, 3725)] == ["59.9 s", "1 min 01 s", "1 h 02 min"]
    assert words.label({"name": "target-2.5ms", "kind": "searched"}) == "search 2.5 ms"
    assert words.label({"name": "target-w2a4", "kind": "searched"}) == "search at W2A4"
    assert words.share(0.98123, 360) == "98.1 %" and words.share(0.98123, 10000) == "98.12 %"
    low, high = findings.interval(0.5, 100)  # Wilson's for 50 of 100
    assert re.match("0.403.* 0.596", f"{low:.4f} {high:.4f}")
