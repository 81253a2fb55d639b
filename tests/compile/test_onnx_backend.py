"""What ONNX's backend tests say of operators that TVM runs in float: what compiles gives ONNX's numbers, and what TVM
computes otherwise is refused. All are compiled by `python -m tests.compile.onnx_backend`, one of each operator here."""

import json

import pytest

from tests.compile import onnx_backend
from tests.frontend.onnx_backend import FOUND, Outcome, attempt, cases


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Case → what the frontend and the reference make of it: of each operator that runs in float the first that passes, and
    all of those that are known to be refused."""
    folder, found = tmp_path_factory.mktemp("read"), {}
    told, seen = json.loads(FOUND.read_text(encoding="utf-8")), set()
    for case in cases():
        (operator,) = case.operators
        if case.name in REFUSED or (operator not in seen and told[operator].get("compiled")):
            outcome = attempt(case, folder)
            if onnx_backend.compiles(outcome):
                found[case.name] = outcome
                seen |= set() if case.name in REFUSED else {operator}
    return found


REFUSED = {
    "test_resize_downsample_scales_linear_antialias": "TVM's operator does not smooth (antialias)",
    "test_resize_downsample_scales_linear": "TVM's operator scales by [1.0, 0.5, 0.5], the ratio of the sizes, not by",
    "test_resize_downsample_sizes_linear_pytorch_half_pixel": "",
    "test_layer_normalization_2d_axis1": "TVM's operator has no output 1",
    "test_layer_normalization_3d_axis1_epsilon": "TVM's operator has no output 1",
    "test_lstm_defaults": "",
}
"""Case → what is said of it; "" of one that is taken."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_tvm_computes_otherwise_is_refused(read, name):
    said = onnx_backend.refused(read[name].graph)
    assert bool(said) == bool(REFUSED[name]) and REFUSED[name] in said and "\n" not in said


def test_one_case_of_each_operator_compiled(read, tmp_path):
    taken: dict[str, Outcome] = {name: o for name, o in read.items() if not onnx_backend.refused(o.graph)}
    assert len(taken) >= 60
    assert not onnx_backend.differing(taken, tmp_path)


def test_a_fault_of_tvm_is_told_by_name(monkeypatch, read):
    """Whatever its lowering raises: the operator that fails by itself is named, and one that does not is not blamed."""
    from mpcompile.compiler.float_regions import lower

    lowered = lower._lowered

    def fails(mod, *given):
        if "relax.op.abs" in str(mod.script()) or "R.abs" in str(mod.script()):
            raise ValueError("first\nsecond")
        return lowered(mod, *given)

    monkeypatch.setattr(lower, "_lowered", fails)
    assert onnx_backend.refused(read["test_abs"].graph) == "node Abs_0 (Abs) cannot be compiled: TVM says: second"
    assert not onnx_backend.refused(read["test_acos"].graph)
