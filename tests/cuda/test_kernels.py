"""Kernels for CUDA devices, emulated: every layer that other tests have, byte for byte; and cubins of them, by NVRTC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.compiler.cuda import nvrtc
from mpcompile.errors import ModelError, TargetError
from mpcompile.runtime.archive import read_archive
from mpcompile.runtime.cuda.code import CudaCode
from mpcompile.schedules import architecture_of
from mpcompile.targets import load_fleet, load_target
from tests.cuda.emulate.network import verify
from tests.data.hand_made import Builder
from tests.kernels import test_layers as layers

DATA = Path(__file__).parents[1] / "data"
BOARDS = [board.name for board in load_fleet("cuda").boards]


@pytest.mark.parametrize("target", ["orin", "nano"])
@pytest.mark.parametrize("families", [("popcount", "popcount"), ("dot", "popcount"), ("dot", "dot")])
def test_residual_block(target, families):
    layers.test_residual_block(target, families)


@pytest.mark.parametrize("shape", [(3, 12, 17), (20, 5, 6), (7, 1, 40), (33, 1, 1)], ids=str)
def test_quantize_a_plain_input(shape):
    layers.test_quantize_a_plain_input("orin", shape)


@pytest.mark.parametrize("form", ["codes", "planes", "float", "plain"])
@pytest.mark.parametrize("kind", ["max", "sum"])
def test_pool_every_format(form, kind):
    layers.test_pool_every_format("orin", form, kind, 70)


@pytest.mark.parametrize("skip_form", ["codes", "planes"])
def test_add_of_codes(skip_form):
    layers.test_add_of_codes("orin", skip_form)


@pytest.mark.parametrize("target", ["orin", "nano"])
@pytest.mark.parametrize("model", ["brevitas_mlp_w3a3", "ort_qdq_int8", "brevitas_residual_w3a4", "brevitas_separable"])
def test_a_network(model, target):
    report = verify(DATA / f"{model}.onnx", target)
    assert report.equal and len(report.rows) > 4, report.summary


def test_a_bundle_holds_a_cubin_for_each_board(tmp_path):
    """Of six architectures, with all that the plans call; the same model gives the same bytes."""
    made = [compile_model(DATA / "hand_qdq_int4.onnx", "cuda", tmp_path / f"{i}.mpc") for i in range(2)]
    assert made[0].read_bytes() == made[1].read_bytes()
    contents = read_archive(made[0])
    archs = {}
    for variant in contents.manifest["variants"]:
        code = CudaCode.from_bytes(contents.members[variant["library"]])
        ((arch, cubin),) = code.cubins.items()
        archs[arch] = variant["target"]["name"]
        assert cubin[:4] == b"\x7fELF" and not code.sources
        assert {call["function"] for call in variant["plan"]["calls"]} == set(code.functions)
        for function in code.functions.values():
            assert all(launch.kernel.encode() in cubin for launch in function.launches)
    assert archs == {load_target(name).arch: name for name in BOARDS} and len(archs) == 6


def test_what_nvrtc_refuses_is_one_line():
    with pytest.raises(TargetError, match=r'^NVRTC did not compile kernels for sm_80: .*error: expected a ";"$'):
        nvrtc.cubin("int nothing", "sm_80")


@pytest.mark.parametrize("arch", ["sm_100", "sm_35", "gfx90a"])
def test_devices_without_schedules_are_refused(arch):
    with pytest.raises(
        TargetError, match=f"board: there are no schedules for CUDA devices of {arch}: supported are sm_50"
    ):
        architecture_of(replace(load_target("orin"), name="board", arch=arch))


def test_float_operators_are_refused_by_name(tmp_path):
    b = Builder("net", 13, (4, 6, 6))
    onnx.save(b.model(b.add("Softmax", "x", axis=1)), tmp_path / "m.onnx")
    says = (
        r"\(Softmax\) runs in float \(it has no form on integers\), which is not compiled for devices of kind cuda yet"
    )
    with pytest.raises(ModelError, match=says):
        compile_model(tmp_path / "m.onnx", "orin", tmp_path / "m.mpc")
    assert not (tmp_path / "m.mpc").exists()
