"""The harness itself, in little: each kind's inputs are judged, crashes and hangs are their input's, findings shrink; and
whatever was found once is judged again."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.kind import Kind, Wrong
from tests.fuzz.kinds import ALL
from tests.fuzz.mutate_onnx import DATA, FOUND
from tests.fuzz.pool import Judge, Outcome, judged, shrunk
from tests.fuzz.soak import Sample, complaints, soak
from tests.fuzz.totals import Totals, table

SEED = 20
COUNTS = {"imports": 40, "compiles": 1, "networks": 1, "reads": 2}
FEW = 20
KEPT = sorted(path for path in FOUND.glob("*/*") if path.is_file())


@pytest.mark.parametrize("name", ALL)
def test_a_few_of_each_kind_show_no_fault(name):
    count = COUNTS.get(name, FEW)
    outcomes = list(judged(ALL[name], ((SEED, i) for i in range(count))))
    assert [(o.job, o.wrong) for o in outcomes if o.wrong] == []
    assert len(outcomes) == count and (count < FEW or len(Counter(o.word for o in outcomes)) > 1 or name == "journals")


@pytest.mark.parametrize("kind", sorted({path.parent.name for path in KEPT}))
def test_what_was_found_once_is_mended(kind):
    """Every file of tests/data/fuzz, as its folder's kind judges it."""
    with Judge(ALL[kind]) as judge:
        found = {p.name: judge(p.read_bytes()).wrong for p in KEPT if p.parent.name == kind}
    assert found and not {name: wrong for name, wrong in found.items() if wrong}


def test_what_is_kept_is_small_and_of_a_kind():
    assert all(path.stat().st_size < 110_000 and path.suffix == ALL[path.parent.name].suffix for path in KEPT)
    assert FOUND.parent == DATA


@pytest.mark.parametrize("name", ["imports", "networks", "manifests", "boards"])
def test_a_number_makes_the_same_input_again(name):
    kind = ALL[name]
    assert kind.make((SEED, 1)) == kind.make((SEED, 1))
    assert len({kind.make((SEED, i)) for i in range(5)}) > 1


class Bad(Kind):
    """Inputs that do what their text says."""

    name, suffix, share, count, cpu_seconds = "bad", ".txt", 0.0, 0, 1

    def make(self, number, without=frozenset()):
        words = [w for i, w in enumerate(("quiet", "die", "quiet", "wrong", "odd")) if i not in without]
        return " ".join(words).encode() if number[1] == 5 else [b"quiet", b"die", b"hang", b"wrong", b"odd"][number[1]]

    def edits(self, number):
        return 5 if number[1] == 5 else 0

    def judge(self, content: bytes, folder: Path, aside):
        if b"witness" in content:
            aside("somebody")
        if b"die" in content:
            os.abort()
        while b"hang" in content:
            pass
        if b"wrong" in content:
            raise Wrong("wrong: said so")
        if b"odd" in content:
            raise ZeroDivisionError("by\nnought")
        return "fine"


def test_each_fault_is_its_input_s():
    outcomes = {o.job[1]: o for o in judged(Bad(), ((0, i) for i in range(5)))}
    assert [outcomes[i].word for i in range(5)] == ["fine", "died", "hung", "wrong", "wrong"]
    assert outcomes[1].wrong == "died: exit -6" and outcomes[2].sort == "hang: over 1 s of the processor"
    assert outcomes[3].wrong == "wrong: said so"
    assert outcomes[4].sort.startswith("ZeroDivisionError: ") and outcomes[4].wrong.endswith("| by nought")


def test_a_witness_that_dies_is_no_fault():
    with Judge(Bad()) as judge:
        died = judge(b"witness die")
        assert (died.word, died.wrong) == ("somebody failed", "") and judge(b"quiet").word == "fine"


def test_a_finding_loses_the_edits_that_it_does_not_need():
    with Judge(Bad()) as judge:
        found = judge((0, 5))
    assert found.word == "died" and shrunk(Bad(), found) == b"die"


def test_a_run_ends_when_its_time_is_over():
    assert list(judged(Bad(), iter(lambda: (0, 0), None), until=time.monotonic() - 1)) == []


def test_a_soak_of_a_few_seconds_is_flat(tmp_path):
    found = soak(4.0, tmp_path, 1.0, say=lambda line: None)
    assert found["wrong"] == [] and found["grew"] == []
    assert set(found["operations"]) >= {"batch", "run_new"} and len(found["samples"]) >= 2


@pytest.mark.parametrize("what", ["threads", "files", "descriptors", "children", "mappings", "rss"])
def test_a_soak_notices_what_grows(what):
    first = Sample(1.0, 100, 5, 200, 12, 0, 300, 1 << 28)
    later = Sample(9.0, 1100, **{k: getattr(first, k) + (1 << 26) * (k == what) for k in list(vars(first))[2:]})
    assert len(complaints([first, later])) == 1 and complaints([first, first]) == []


def test_the_table_of_totals():
    told = Totals.of(ALL["bundles"], Counter(refused=1200, works=30), 0, 61.2, 3)
    assert "| bundles | 1,230 | 1,200 refused, 30 works | 0 | 61 |" in table({"bundles": told})


def test_networks_of_every_format_and_opset():
    from tests.fuzz.random_networks import random_network

    rng = random.Random(0)
    found = [random_network(rng) for _ in range(60)]
    ops = {node.op_type for model in found for node in model.graph.node}
    assert ops >= {
        "Conv",
        "QLinearConv",
        "IntQuant",
        "QuantizeLinear",
        "QGemm",
        "Concat",
        "Transpose",
        "MaxPool",
        "PRelu",
    }
    assert len({model.opset_import[0].version for model in found}) > 4


def test_outcomes_are_sorted_by_cause():
    a, b = (Outcome((0, i), "wrong", f"codes: Dense differs | {t}: 3 of 8", 0.1) for i, t in enumerate("xy"))
    assert a.sort == b.sort == "codes: Dense differs"
