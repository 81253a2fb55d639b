"""ONNX's own backend tests: every case of one operator passes, or is refused for a reason that we know; and the
documentation lists what passes."""

import json
import re

import numpy as np
import onnxruntime
import pytest

from tests.frontend import onnx_backend

FEWEST = 500
"""Cases that pass: a change that refuses many others is noticed."""


@pytest.fixture(scope="module")
def found():
    """Operator → case → what came out."""
    return onnx_backend.run_all()


def test_no_case_is_wrong_and_none_fails_by_a_fault(found):
    odd = {
        name: (outcome.kind, outcome.said)
        for outcomes in found.values()
        for name, outcome in outcomes.items()
        if outcome.kind in ("wrong", "fault") and name not in onnx_backend.EXECUTORS_DISAGREE
    }
    halves = {name: odd.pop(name, None) for name in onnx_backend.ROUNDED_TO_HALVES}
    assert set(halves.values()) == {("wrong", "output differs")}
    assert not odd


def test_what_is_refused_is_refused_for_a_reason(found):
    unknown = {
        name: outcome.said
        for outcomes in found.values()
        for name, outcome in outcomes.items()
        if outcome.kind == "refused"
        and (
            "\n" in outcome.said or not any(re.match(p, onnx_backend.said(outcome.said)) for p in onnx_backend.REFUSALS)
        )
    }
    assert not unknown


def test_most_operators_pass(found):
    passed = [name for outcomes in found.values() for name, o in outcomes.items() if o.kind == "passed"]
    assert len(passed) >= FEWEST


def test_what_is_written_down_is_what_passes(found):
    """`python -m tests.compile.onnx_backend` writes it anew."""
    told = json.loads(onnx_backend.FOUND.read_text(encoding="utf-8"))
    counts = onnx_backend.counted(found)
    assert {name: told[name] | count for name, count in counts.items()} == told


def test_where_executors_disagree_it_is_onnxruntime(found):
    """These differ from what ONNX's tests expect, and would be wrong, did ONNX Runtime not say the same of the file."""
    told = {c.name: c for c in onnx_backend.cases() if c.name in onnx_backend.EXECUTORS_DISAGREE}
    assert set(told) == onnx_backend.EXECUTORS_DISAGREE
    for case in told.values():
        (operator,) = case.operators
        outcome = found[operator][case.name]
        assert outcome.kind == "wrong", f"{case.name} passes now"
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
        given = {v.name: x for v, x in zip(case.model.graph.input, case.inputs)}
        theirs = session.run(None, {i.name: given[i.name] for i in session.get_inputs()})
        for port, result in zip(session.get_outputs(), theirs):
            np.testing.assert_allclose(outcome.outputs[port.name], result, rtol=1e-3, atol=1e-5)
