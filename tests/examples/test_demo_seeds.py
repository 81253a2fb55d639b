"""How often the demo won, of reports as its runs leave them, and one run whose table another seed takes up."""

import json

import pytest

from benchmarks import demo_seeds
from mpcompile.errors import UsageError
from tests.search.small_config import small_config


def report(searched_beaten=(), uniform_beaten=("uniform-w1a2", "uniform-w2a2", "uniform-w4a4"), accuracy=0.8, **more):
    kinds = {"uniform-w1a2": "uniform", "uniform-w2a2": "uniform", "uniform-w4a4": "uniform", "target-w2a2": "searched"}
    return {
        "missing": [],
        "raced": True,
        "beaten": {"uniform": list(uniform_beaten), "searched": list(searched_beaten)},
        "points": [{"name": n, "kind": k, "accuracy": accuracy} for n, k in kinds.items()],
        "derived": {n: {"label": n.upper(), "seconds": 1e-6 * (i + 1)} for i, n in enumerate(kinds)},
    } | more


def test_a_seed_wins_by_three_beaten_and_none_lost():
    assert demo_seeds.Seed.of(0, report()).won
    assert not demo_seeds.Seed.of(0, report(searched_beaten=["target-w2a2"])).won
    assert not demo_seeds.Seed.of(0, report(uniform_beaten=["uniform-w1a2", "uniform-w2a2"])).won
    for unfinished in (report(missing=["the race of all points"]), report(raced=False)):
        with pytest.raises(UsageError, match="seed 3 is not finished"):
            demo_seeds.Seed.of(3, unfinished)


def test_what_is_told_of_seeds(tmp_path, capsys):
    for number, of in ((0, report()), (2, report(["target-w2a2"], accuracy=0.7)), (10, report(raced=False))):
        (tmp_path / f"seed-{number}").mkdir()
        (tmp_path / f"seed-{number}" / "report.json").write_text(json.dumps(of))
    assert demo_seeds.main(["-o", str(tmp_path), "--report"]) == 0
    told = (tmp_path / "demo_seeds.md").read_text()
    assert told in capsys.readouterr().out
    assert told.startswith("1 of 2 seeds: at least 3 of the 3 uniform networks beaten")
    assert "| 2 | 3: UNIFORM-W1A2, UNIFORM-W2A2, UNIFORM-W4A4 | 1: TARGET-W2A2 |" in told
    assert "| UNIFORM-W1A2 | 75.0 ± 7.1% | 1.0 ± 0.0 µs |" in told and "| 10 |" not in told
    assert demo_seeds.main(["-o", str(tmp_path / "none"), "--report"]) == 2
    assert "no seed of" in capsys.readouterr().err


def test_two_seeds_and_one_table(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    file, out = tmp_path / "search.toml", tmp_path / "out"
    file.write_text(small_config(data={"side": 8, "train": 96, "test": 48}))
    assert demo_seeds.main(["-o", str(out), "--config", str(file), "--seeds", "1"]) == 0
    measured = (out / "cells").read_bytes()
    assert demo_seeds.main(["-o", str(out), "--config", str(file), "--seeds", "2"]) == 0
    assert (out / "cells").read_bytes() == measured and measured
    told = (out / "demo_seeds.md").read_text()
    assert "of 2 seeds" in told and "| W1A2 |" in told
    reports = [json.loads((out / f"seed-{n}" / "report.json").read_text()) for n in (0, 1)]
    assert [r["config"].splitlines()[0] for r in reports] == ["seed = 0", "seed = 1"]
